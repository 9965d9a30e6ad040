"""Token files that other programs wrote, read in place: nanoGPT's raw uint16 and wider ids, llm.c's and
modded-nanogpt's with a header. They are hostile until parsed: sizes, versions and every id are checked.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from gpt_pretrain.data.fingerprints import content_digest, remembered
from gpt_pretrain.data.kinds import is_text, what_begins_with, why_no_text
from gpt_pretrain.data.notes import combined
from gpt_pretrain.data.tokens import Span, Tokens
from gpt_pretrain.errors import ArtifactError, InputError

HEADER_BYTES = 1024  # 256 int32: magic, version, number of tokens (llm.c, dev/data/data_common.py)
# (magic, version) to the type of a token: llm.c's gpt-2 and llama-3 files.
VERSIONS = {(20240520, 1): "<u2", (20240801, 7): "<u4"}
MAGICS = {magic for magic, _ in VERSIONS}
RAW = {"uint16": "<u2", "uint32": "<u4", "int32": "<i4", "int64": "<i8"}  # data.token_dtype, without a header
NAMES = {dtype: name for name, dtype in RAW.items()}
BLOCK = 1 << 22  # tokens checked at once
SAMPLE = 1 << 18  # bytes looked at for the type, at the beginning, in the middle and at the end
MARKED = 256  # bytes without a zero that may be text
FEWEST = 8  # ids above 0 from which on a pattern of zeros is no chance
SAID = "say which type the ids have: data.token_dtype=uint16, uint32, int32 or int64"


@dataclass(kw_only=True, slots=True)
class TokenFiles:
    """Files of tokens, one after another."""

    tokens: Tokens
    fingerprint: str  # of their content and, where it is not the usual one, their type
    digests: list[str]  # of each file's content
    dtypes: list[str]  # of each file's ids


def read_token_files(
    files: list[Path], cache: Path, *, vocab_size: int, token_dtype: str = "auto"
) -> TokenFiles:
    """The files' tokens, one file after another.

    Raises ArtifactError for a file of a wrong size or version, or with an id that is none of `vocab_size`.
    Each file is read once for its digest and highest id, at about 1 GB/s; both are kept for as long as it
    stays the same.
    """
    spans, digests, marks = [], [], []
    for file in files:
        # half of all texts would pass for uint16 tokens
        if is_text(file) or ((why := why_no_text(file)) and not file.name.lower().endswith(".bin")):
            remedy = "holds text, not tokens: choose data=text_files, or data=mixture for both"
            raise InputError(f"{file} {remedy if is_text(file) else why}")
        try:
            span = read_span(file, vocab_size=vocab_size, token_dtype=token_dtype)
            usual = span.offset or span.dtype == "<u2"
            kind = "tokens" if usual else f"tokens {span.dtype}"
            facts = remembered(file, cache, kind, partial(_facts, span=span))
        except OSError as error:
            raise InputError(f"data.path={file} cannot be read: {error.strerror}") from error
        if facts["highest"] >= vocab_size or facts.get("lowest", 0) < 0:
            _refuse_id(file, span, facts, vocab_size)
        spans.append(span)
        digests.append(facts["digest"])
        marks.append(facts["digest"] if usual else f"{facts['digest']} {span.dtype}")
    return TokenFiles(
        tokens=Tokens(list(spans)),
        fingerprint=combined("+".join(marks)),
        digests=digests,
        dtypes=[NAMES[span.dtype] for span in spans],
    )


def _refuse_id(file: Path, span: Span, facts: dict[str, Any], vocab_size: int) -> NoReturn:
    if facts["highest"] >= vocab_size:
        what = f"id {facts['highest']} at token {facts['place']}, beyond the tokenizer's {vocab_size} ids"
    else:
        what = f"id {facts['lowest']}, below 0, as no token is"
    raise ArtifactError(
        f"{file} holds {what}\nchoose the tokenizer that wrote it, as in tokenizer=gpt2"
        + ("" if span.offset else f"; they were read as {NAMES[span.dtype]}, else {SAID}")
    )


def read_span(file: Path, *, vocab_size: int, token_dtype: str = "auto") -> Span:
    """Where the tokens of a file lie. Raises ArtifactError."""
    size = file.stat().st_size
    header = np.zeros(3, "<i4")
    begins = np.fromfile(file, "<i4", 3)
    header[: len(begins)] = begins  # zeros where the file is shorter
    magic, version, n_tokens = header.tolist()
    if magic not in MAGICS:
        return _raw_span(file, size, vocab_size, token_dtype)
    dtype = VERSIONS.get((magic, version))
    if dtype is None:
        known = " and ".join(f"{m} version {v}" for m, v in VERSIONS)
        raise ArtifactError(f"{file} has a header of {magic} version {version}: {known} can be read")
    if token_dtype not in ("auto", NAMES[dtype]):
        raise InputError(
            f"data.token_dtype={token_dtype}, but the header of {file} says {NAMES[dtype]}: leave it at auto"
        )
    expected = HEADER_BYTES + n_tokens * np.dtype(dtype).itemsize
    if n_tokens < 1 or expected != size:
        raise ArtifactError(
            f"{file} is damaged or cut off: its header says {n_tokens} tokens, so {expected} bytes; "
            f"it has {size}"
        )
    return Span(file=file, dtype=dtype, n=n_tokens, offset=HEADER_BYTES)


def _raw_span(file: Path, size: int, vocab_size: int, token_dtype: str) -> Span:
    if size == 0:
        raise ArtifactError(f"{file} is empty: it holds no tokens")
    name = token_dtype
    if token_dtype == "auto":
        name = "uint16"
        if size % 2 == 0:
            name, problem = recognised(_sample(file, size), size, vocab_size)
            if problem:
                raise ArtifactError(f"{file} {problem}\n{SAID}")
    itemsize = np.dtype(RAW[name]).itemsize
    if size % itemsize:
        raise ArtifactError(f"{file} is no token file: {size} bytes are not a whole number of {name} tokens")
    return Span(file=file, dtype=RAW[name], n=size // itemsize)


def recognised(sample: bytes, size: int, vocab_size: int) -> tuple[str, str | None]:
    """The type of raw ids, by the bytes of some of them, and why it can be none, or None.

    Ids as wide as 8 or 4 bytes leave most of their bytes zero, which no text in uint16 does: the widest type
    that all ids of the sample fit is theirs. `sample` is a whole number of 8 bytes where `size` is.
    """
    if (what := what_begins_with(sample)) or (what := _as_text(sample)):
        return "uint16", f"holds no raw tokens, it is {what}"
    for name in ("int64", "uint32"):
        ids = _seen_as(sample, RAW[name])
        fits = size % ids.itemsize == 0 and np.count_nonzero(ids) >= FEWEST
        if fits and ids.min() >= 0 and ids.max() < vocab_size:
            return name, None
    pairs = _seen_as(sample, "<u2")
    for step in (4, 2):
        used = [np.count_nonzero(pairs[place::step]) for place in range(step)]
        if size % (2 * step) == 0 and sum(used) >= FEWEST and sum(count > 0 for count in used) == 1:
            kind = "below 0, big-endian" if used[0] == 0 else "too large for the tokenizer"
            return "uint16", (
                f"holds no uint16 tokens, {step - 1} of {step} are 0: ids of {16 * step} bits, {kind}"
            )
    for dtype in ("<f4", "<f8", ">u2"):
        if size % np.dtype(dtype).itemsize == 0 and _are_ids(_seen_as(sample, dtype), pairs, vocab_size):
            kind = "big-endian uint16" if dtype == ">u2" else f"float{8 * np.dtype(dtype).itemsize}"
            return "uint16", f"holds {kind}, which is not read: write it as little-endian uint16"
    return "uint16", None


def _are_ids(values: np.ndarray, pairs: np.ndarray, vocab_size: int) -> bool:
    """Whether all are ids where as uint16 they are none, or are whole numbers though written as floats."""
    if np.count_nonzero(values) < FEWEST or not np.isfinite(values).all():
        return False
    if values.dtype.kind != "f" and pairs.max() < vocab_size:
        return False
    return bool(((values >= 0) & (values < vocab_size) & (values == np.floor(values))).all())


def _as_text(sample: bytes) -> str | None:
    """Tokens have zeros among their bytes and are soon no UTF-8."""
    if len(sample) < MARKED or b"\0" in sample:
        return None
    try:
        sample[:MARKED].decode("ascii")
    except UnicodeDecodeError:
        return None
    return "text: give it a name that ends in .txt, and choose data=text_files"


def _seen_as(sample: bytes, dtype: str) -> np.ndarray:
    return np.frombuffer(sample, dtype, len(sample) // np.dtype(dtype).itemsize)


def _sample(file: Path, size: int) -> bytes:
    """Bytes at the beginning, in the middle and at the end, each from a place where an id may begin."""
    if size <= 3 * SAMPLE:
        return file.read_bytes()
    pieces = []
    with file.open("rb") as stream:
        for start in (0, size // 2, size - SAMPLE):
            stream.seek(start - start % 8)
            pieces.append(stream.read(SAMPLE))
    return b"".join(pieces)


def _facts(file: Path, span: Span) -> dict[str, Any]:
    return content_digest(file) | _extremes(span)


def _extremes(span: Span) -> dict[str, Any]:
    """The highest id, the first place where it stands, and the lowest."""
    (tokens,) = Tokens([span]).maps
    highest, place, lowest = -1, 0, 0
    for start in range(0, len(tokens), BLOCK):
        block = tokens[start : start + BLOCK]
        if (top := int(block.max())) > highest:
            highest, place = top, start + int(block.argmax())
        lowest = min(lowest, int(block.min())) if block.dtype.kind == "i" else lowest
    return {"highest": highest, "place": place, "lowest": lowest}
