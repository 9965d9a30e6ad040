"""Token files that other programs wrote, read in place: nanoGPT's raw uint16, llm.c's and modded-nanogpt's
with a header. They are hostile until parsed: sizes, versions and every id are checked.
"""

from pathlib import Path
from typing import Any

import numpy as np

from gpt_pretrain.data.fingerprints import content_digest, remembered
from gpt_pretrain.data.kinds import is_text
from gpt_pretrain.data.tokens import Span, Tokens
from gpt_pretrain.errors import ArtifactError, InputError

HEADER_BYTES = 1024  # 256 int32: magic, version, number of tokens (llm.c, dev/data/data_common.py)
# (magic, version) to the type of a token: llm.c's gpt-2 and llama-3 files.
VERSIONS = {(20240520, 1): "<u2", (20240801, 7): "<u4"}
MAGICS = {magic for magic, _ in VERSIONS}
BLOCK = 1 << 22  # tokens checked at once


def read_token_files(files: list[Path], cache: Path, *, vocab_size: int) -> tuple[Tokens, str]:
    """The files' tokens, one file after another, and a digest of their content.

    Raises ArtifactError for a file of a wrong size or version, or with an id at or above `vocab_size`. Each
    file is read once for its digest and highest id, at about 1 GB/s; both are kept for as long as it stays
    the same.
    """
    spans, digests = [], []
    for file in files:
        if is_text(file):  # half of all texts would pass for uint16 tokens
            raise InputError(
                f"{file} holds text, not tokens: choose data=text_files, or data=mixture for both"
            )
        try:
            span = read_span(file)
            facts = remembered(file, cache, "tokens", lambda f: content_digest(f) | _highest(read_span(f)))
        except OSError as error:
            raise InputError(f"data.path={file} cannot be read: {error.strerror}") from error
        if facts["highest"] >= vocab_size:
            raise ArtifactError(
                f"{file} holds id {facts['highest']} at token {facts['place']}, beyond the tokenizer's "
                f"{vocab_size} ids\nchoose the tokenizer that wrote it, as in tokenizer=gpt2"
            )
        spans.append(span)
        digests.append(facts["digest"])
    return Tokens(list(spans)), "+".join(digests)


def read_span(file: Path) -> Span:
    """Where the tokens of a file lie. Raises ArtifactError."""
    size = file.stat().st_size
    header = np.zeros(3, "<i4")
    begins = np.fromfile(file, "<i4", 3)
    header[: len(begins)] = begins  # zeros where the file is shorter
    magic, version, n_tokens = header.tolist()
    if magic not in MAGICS:
        if size % 2:
            raise ArtifactError(
                f"{file} is no token file: {size} bytes are not a whole number of uint16 tokens"
            )
        if size == 0:
            raise ArtifactError(f"{file} is empty: it holds no tokens")
        return Span(file=file, dtype="<u2", n=size // 2)
    dtype = VERSIONS.get((magic, version))
    if dtype is None:
        known = " and ".join(f"{m} version {v}" for m, v in VERSIONS)
        raise ArtifactError(f"{file} has a header of {magic} version {version}: {known} can be read")
    expected = HEADER_BYTES + n_tokens * np.dtype(dtype).itemsize
    if n_tokens < 1 or expected != size:
        raise ArtifactError(
            f"{file} is damaged or cut off: its header says {n_tokens} tokens, so {expected} bytes; "
            f"it has {size}"
        )
    return Span(file=file, dtype=dtype, n=n_tokens, offset=HEADER_BYTES)


def _highest(span: Span) -> dict[str, Any]:
    """The highest id and the first place where it stands."""
    (tokens,) = Tokens([span]).maps
    highest, place = -1, 0
    for start in range(0, len(tokens), BLOCK):
        block = tokens[start : start + BLOCK]
        if (top := int(block.max())) > highest:
            highest, place = top, start + int(block.argmax())
    return {"highest": highest, "place": place}
