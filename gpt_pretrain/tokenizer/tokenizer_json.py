"""A Hugging Face `tokenizer.json` through the `tokenizers` library."""

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.foreign import DEEPEST, parse_json
from gpt_pretrain.tokenizer.protocol import (
    InSegments,
    printable_bytes,
    to_json,
    tokenizer_config,
    without_surrogates,
)
from gpt_pretrain.tokenizer.segmentation import BEFORE_PLAIN_SPACE

BYTE_OF = {character: bytes([byte]) for byte, character in enumerate(printable_bytes())}
# Decoders of the library for which a table may stand: stand-ins of bytes, or what is done token by token.
BYTE_LEVEL = {"ByteLevel", "Fuse"}
BY_TOKEN = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace", "WordPiece"}
MOST_IDS = 1 << 24  # tables are as long as the largest id says, and that may come from elsewhere
# Characters that a file's steps may make of one, were each to lengthen all that the last one wrote.
MOST_GROWTH = 32
# What these lengthen a text may have, and any file does so, once: it counts in what a file itself writes.
GROWTH = {"NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "Lowercase": 2, "Metaspace": 2}
GROWTH |= {"BertNormalizer": 4, "ByteLevel": 4}
LONGEST_FORM = 33  # bytes of Unicode's longest plain form, that of U+FDFA: a sound charsmap writes no more
# Possessive, and one that never ends is taken too: else a file of quotes takes for ever.
_TEXT = r'"[^"\\]*+(?:\\.[^"\\]*+)*+'
_PAIR_OR_TEXT = re.compile(rf'\[\s*{_TEXT}"\s*,\s*{_TEXT}"\s*\]|{_TEXT}"?', re.DOTALL | re.ASCII)


class HuggingFaceTokenizer(InSegments):
    """Any `tokenizer.json` whose tokens write the same wherever they stand in a text.

    They are decoded as amid a text: a space that its first word lacks is there. What the file's normalizer or
    pre-tokenizer drops (capitals, line ends) comes back no more than in transformers.

    Tokens that a file's template sets around a text (`adds` many) are left out, in what is handed on too: no
    run is trained with them. What its normalizer prepends to a text stands before each segment of a long one.
    """

    name = "huggingface"
    safe = BEFORE_PLAIN_SPACE

    def __init__(
        self, content: bytes, end_of_text: str, special_tokens: list[str] | None = None, path: str = ""
    ) -> None:
        """Raises ArtifactError for a file that is no tokenizer, or whose tokens write what depends on their
        neighbours; InputError where it lacks `end_of_text`.
        """
        self.end_of_text, self.special_tokens = end_of_text, special_tokens or []
        file = path or "tokenizer.json"
        with _panics_refused(file):
            self._read(content, file)

    def _read(self, content: bytes, file: str) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise InputError(
                "tokenizer=huggingface needs the tokenizers library: pip install '.[data]'"
            ) from error
        try:
            text = content.decode()
            if _growth(text) > MOST_GROWTH:  # first, since reading it does that to its own added tokens
                raise ValueError(f"one character may become more than {MOST_GROWTH}: use another file")
            self._tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise ArtifactError(f"{file} is no tokenizer: {error}") from error
        self._tokenizer.add_special_tokens(self.special_tokens)
        self._tokenizer.no_padding()  # which a file may ask for, as for cutting texts off
        self._tokenizer.no_truncation()
        self.adds = self._tokenizer.num_special_tokens_to_add(False)
        if self.adds:
            self._tokenizer.post_processor = None
        end_of_text_id = self._tokenizer.token_to_id(self.end_of_text)
        if end_of_text_id is None:
            raise InputError(
                f"tokenizer.end_of_text={self.end_of_text} is not in {file}: set one of "
                f"{', '.join(self._likely_ends()) or 'its own tokens, or add it to tokenizer.special_tokens'}"
            )
        self.end_of_text_id = end_of_text_id
        try:
            _give_decoder(self._tokenizer)
            self._bytes_of = self._byte_table()
        except ValueError as error:
            raise ArtifactError(
                f"{file}: {error}, so that a token's text depends on its neighbours: "
                "only those of ByteLevel, Metaspace or WordPiece are read"
            ) from error
        self.vocab_size = max(self._bytes_of) + 1
        if self.vocab_size > MOST_IDS:
            raise ArtifactError(f"{file} has the id {self.vocab_size - 1}, above {MOST_IDS}")

    def encode_segment(self, text: str, *, allow_special: bool = False) -> np.ndarray:
        self._tokenizer.encode_special_tokens = not allow_special  # true means: as plain text
        with _panics_refused("tokenizer=huggingface"):
            try:
                encoded = self._tokenizer.encode(without_surrogates(text), add_special_tokens=False)
            except Exception as error:  # the library has no other kind
                raise InputError(
                    f"tokenizer=huggingface cannot read the text: {error}\n"
                    "choose another tokenizer, or give it a token for what it does not know"
                ) from error
        return np.array(encoded.ids, np.uint32)

    def decode_bytes(self, token_ids: list[int]) -> bytes:
        return b"".join(self._bytes_of.get(id_, b"") for id_ in token_ids)

    def settings(self) -> dict[str, Any]:
        return {"name": self.name, "end_of_text": self.end_of_text, "special_tokens": self.special_tokens}

    def files(self) -> dict[str, bytes]:
        return {
            "tokenizer.json": self._tokenizer.to_str().encode(),
            "tokenizer_config.json": to_json(tokenizer_config(self.end_of_text)),
        }

    def _likely_ends(self) -> list[str]:
        return [t.content for t in self._tokenizer.get_added_tokens_decoder().values() if t.special][:5]

    def _byte_table(self) -> dict[int, bytes]:
        """Bytes that each id is amid a text, as the file's own decoder has it. Raises ValueError."""
        if getattr(self._tokenizer.model, "end_of_word_suffix", None):  # which BPE models alone have
            raise ValueError("its words end in a mark")
        kinds = _kinds(self._tokenizer.decoder)
        ids, added = self._tokenizer.get_vocab(), self._tokenizer.get_added_tokens_decoder()
        # What a text may name is what it says there; what stands for unknown words is set as a word.
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        special = {entry.content for entry in added.values() if entry.special} - {unknown}
        table, rest = {}, {}
        for token, id_ in ids.items():
            if token == self.end_of_text or token in special or ("ByteLevel" in kinds and id_ in added):
                table[id_] = token.encode()
            elif "ByteLevel" in kinds:
                stands_in = BYTE_OF.keys() >= set(token)
                table[id_] = b"".join(BYTE_OF[c] for c in token) if stands_in else token.encode()
            elif "ByteFallback" in kinds and (match := re.fullmatch("<0x([0-9A-Fa-f]{2})>", token)):
                table[id_] = bytes([int(match[1], 16)])
            else:
                rest[id_] = token
        texts = _amid_a_text(list(rest.values()), self._tokenizer.decoder)
        return table | {id_: text.encode() for id_, text in zip(rest, texts, strict=True)}


@contextmanager
def _panics_refused(file: str) -> Iterator[None]:
    """What makes the library, which is Rust, panic is an ArtifactError: a panic is no Exception."""
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":
            raise
        said = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"{file} makes the tokenizers library fail: {said}: use another tokenizer"
        ) from error


def _growth(content: str) -> int:
    """How many characters the steps of a tokenizer.json may make of one: 1 where they lengthen nothing."""
    from tokenizers import Tokenizer

    # Merges, by far the most of its values, are pairs of texts.
    whole = parse_json(_PAIR_OR_TEXT.sub(lambda match: "0" if match[0][0] == "[" else match[0], content))
    alone = {key: whole.get(key) for key in ("normalizer", "pre_tokenizer")}
    alone |= {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}
    tokenizer = Tokenizer.from_str(to_json(alone).decode())
    growth, writes = 1, False  # whether a step so far may write what a later one lengthens
    steps = [*_steps(tokenizer.normalizer, "normalizers"), *_steps(tokenizer.pre_tokenizer, "pretokenizers")]
    for step in steps:
        if growth > MOST_GROWTH:
            break
        kind, written = step["type"], step.get("content") or step.get("prepend") or ""
        if kind == "Replace":
            growth *= _growth_of_replace(step["pattern"], written)
        elif kind == "Prepend":
            growth *= max(1, len(written))
        elif kind == "Precompiled":
            growth *= _growth_of_charsmap(step["precompiled_charsmap"], of_ascii=not writes)
        elif writes:
            growth *= GROWTH.get(kind, 1)
        writes = writes or not written.isascii() or kind in ("BertNormalizer", "ByteLevel", "Precompiled")
    return growth


def _growth_of_replace(pattern: dict[str, str], written: str) -> int:
    if text := pattern.get("String"):
        return max(1, -(-len(written) // len(text)))
    one = r"(\\s|\[[^\]\\]+\]|[^\\\[\](){}^$.|*+?])(\+|\{[1-9]\d*(,\d*)?\})?"
    # Others may match nothing, beside every character.
    return max(1, len(written)) if re.fullmatch(one, pattern.get("Regex", "")) else 1 + len(written)


def _growth_of_charsmap(charsmap: str, *, of_ascii: bool) -> int:
    """Of SentencePiece's table: a tree's size in 4 bytes, the tree, what it writes, each before a 0."""
    from tokenizers import normalizers

    content = base64.b64decode(charsmap)
    start = 4 + int.from_bytes(content[:4], "little")
    longest = max((len(match[0]) for match in re.finditer(rb"[^\0]+", content[start:])), default=1)
    if longest > LONGEST_FORM or not of_ascii:
        return longest
    step = normalizers.Precompiled(content)
    return max(1, *(len(step.normalize_str(chr(code))) for code in range(128)))


def _give_decoder(tokenizer: Any) -> None:
    """Where a file forgets its decoder: that of the marks which its pre-tokenizer puts into a text."""
    from tokenizers import decoders

    if tokenizer.decoder is not None or tokenizer.pre_tokenizer is None:
        return
    for step in _steps(tokenizer.pre_tokenizer, "pretokenizers"):
        if step["type"] == "ByteLevel":
            tokenizer.decoder = decoders.ByteLevel()
        elif step["type"] == "Metaspace":
            tokenizer.decoder = decoders.Metaspace(
                replacement=step["replacement"], prepend_scheme=step["prepend_scheme"]
            )


def _kinds(decoder: Any) -> set[str]:
    """What a decoder does. Raises ValueError for what has no table, or may make much of little."""
    steps = _steps(decoder, "decoders")
    kinds = {step["type"] for step in steps}
    lengthens = any(
        len(step["content"]) > 1 or not step["pattern"].get("String")
        for step in steps
        if step["type"] == "Replace"
    )
    sound = kinds <= BYTE_LEVEL or kinds <= BY_TOKEN
    if not sound or lengthens or len(steps) > DEEPEST:
        raise ValueError(f"its decoder is {', '.join(step['type'] for step in steps[:DEEPEST])}")
    return kinds


def _steps(part: Any, inner: str) -> list[dict[str, Any]]:
    return [] if part is None else _flat(parse_json(part.__getstate__()), inner)


def _flat(step: dict[str, Any], inner: str) -> list[dict[str, Any]]:
    return [s for part in step[inner] for s in _flat(part, inner)] if step["type"] == "Sequence" else [step]


def _amid_a_text(tokens: list[str], decoder: Any) -> list[str]:
    """What each token adds to a text behind another. Raises ValueError where neighbours change it."""
    write = " ".join if decoder is None else decoder.decode  # without one the library puts spaces between
    before = write(["a"])
    texts = [write(["a", token]).removeprefix(before) for token in tokens]
    twice = [token for token in tokens for _ in range(2)]
    if write(["a", *twice]) != before + "".join(text * 2 for text in texts):
        raise ValueError("its decoder writes a token by what stands beside it")
    return texts
