"""Byte-level BPE through tiktoken: GPT-2's, from the ranks inside the package, and any from a ranks file."""

import base64
import binascii
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
import tiktoken

from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.foreign import parse_json
from gpt_pretrain.tokenizer import patterns
from gpt_pretrain.tokenizer.protocol import (
    END_OF_TEXT,
    InSegments,
    added_token,
    printable_bytes,
    to_json,
    tokenizer_config,
    without_surrogates,
)
from gpt_pretrain.tokenizer.segmentation import BEFORE_ANY_SPACE, BEFORE_PLAIN_SPACE

RANKS_FILE = "ranks.tiktoken"
# Patterns and special tokens of the published encodings, as tiktoken has them, whose own functions download
# their ranks.
ENCODINGS: dict[str, tuple[str, dict[str, int]]] = {
    "gpt2": (patterns.GPT2, {END_OF_TEXT: 50256}),
    "cl100k_base": (
        patterns.CL100K,
        {
            END_OF_TEXT: 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "o200k_base": (patterns.O200K, {END_OF_TEXT: 199999, "<|endofprompt|>": 200018}),
}


class BPETokenizer(InSegments):
    """Byte-pair encoding by tiktoken, with any ranks and pattern."""

    def __init__(
        self,
        name: str,
        ranks: dict[bytes, int],
        pattern: str,
        special: dict[str, int],
        end_of_text: str = END_OF_TEXT,
    ) -> None:
        """`special` has `end_of_text` among its tokens. Raises InputError for a bad pattern."""
        self.name, self.ranks, self.pattern, self.special = name, ranks, pattern, special
        self.end_of_text = end_of_text
        self.safe = BEFORE_ANY_SPACE if pattern == patterns.GPT2 else BEFORE_PLAIN_SPACE
        self.end_of_text_id = special[end_of_text]
        self._special_of = {id_: token.encode() for token, id_ in special.items()}
        try:
            self._encoding = tiktoken.Encoding(
                name,
                pat_str=patterns.FASTER.get(pattern, pattern),
                mergeable_ranks=ranks,
                special_tokens=special,
            )
        except ValueError as error:
            raise InputError(f"tokenizer.pattern={pattern} is no pattern: {error}") from error
        self._bytes_of = {id_: token for token, id_ in ranks.items()} | self._special_of
        # cl100k_base and o200k_base leave ids out between their own: those write nothing.
        self.vocab_size = max(self._bytes_of) + 1

    def encode_segment(self, text: str, *, allow_special: bool = False) -> np.ndarray:
        allowed = set(self.special) if allow_special else set()
        try:
            # Nothing is disallowed: by default tiktoken refuses a text that holds a special token.
            return self._encoding.encode_to_numpy(text, allowed_special=allowed, disallowed_special=())
        except UnicodeEncodeError:
            # Lone surrogates: so rare that no text is searched for them beforehand.
            return self.encode_segment(without_surrogates(text), allow_special=allow_special)

    def decode_bytes(self, token_ids: list[int]) -> bytes:
        return b"".join(self._bytes_of.get(id_, b"") for id_ in token_ids)

    def settings(self) -> dict[str, Any]:
        settings = {"name": self.name, "pattern": self.pattern, "special": self.special}
        # Only where it is another one: fingerprints of tokens on disk follow from the settings.
        return settings if self.end_of_text == END_OF_TEXT else settings | {"end_of_text": self.end_of_text}

    def files(self) -> dict[str, bytes]:
        if self.name == "gpt2":
            return _gpt2_files(self.special, self.end_of_text)
        return {
            RANKS_FILE: ranks_file(self.ranks),
            "tokenizer.json": to_json(_tokenizer_json(self.ranks, self.pattern, self.special)),
            "tokenizer_config.json": to_json(tokenizer_config(self.end_of_text)),
        }


def gpt2_ranks(vocab: bytes | None = None) -> dict[bytes, int]:
    """GPT-2's tokens and ranks from its `encoder.json` (`vocab.json` of a checkpoint), by default our own."""
    byte_of = {character: byte for byte, character in enumerate(printable_bytes())}
    ids = parse_json(_vocab_file("encoder.json") if vocab is None else vocab)
    # A token's id is its merge rank, so the published ids are the ranks.
    return {bytes(byte_of[c] for c in token): rank for token, rank in ids.items() if token != END_OF_TEXT}


def read_ranks(content: bytes, name: str) -> dict[bytes, int]:
    """Tokens and ranks of a tiktoken file: a token in base 64 and its rank on each line.

    Raises ArtifactError that names the first line that is none.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise ArtifactError(
                f"{name} is no ranks file of tiktoken: line {number} is {line[:40]!r}, "
                "not a token in base 64 and its rank"
            ) from error
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise ArtifactError(
            f"{name} lacks {len(missing)} of the 256 single bytes, so some text has no tokens"
        )
    if len(set(ranks.values())) < len(ranks) or min(ranks.values()) < 0 or max(ranks.values()) >= 1 << 24:
        raise ArtifactError(f"{name} gives a rank twice, below 0 or above {1 << 24}")
    return ranks


def _gpt2_files(special: dict[str, int], end_of_text: str) -> dict[str, bytes]:
    config: dict[str, Any] = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": end_of_text,
        "eos_token": end_of_text,
        "unk_token": END_OF_TEXT,
    }
    # GPT-2's end of a text is in vocab.json already. Here the id is the key, so no entry has one.
    added = {str(id_): added_token(token, id_) for token, id_ in special.items() if token != END_OF_TEXT}
    for entry in added.values():
        del entry["id"]
    if added:
        config["added_tokens_decoder"] = added
    return {
        "vocab.json": _vocab_file("encoder.json"),
        "merges.txt": _vocab_file("vocab.bpe"),
        "tokenizer_config.json": to_json(config),
    }


def ranks_file(ranks: dict[bytes, int]) -> bytes:
    """What `read_ranks` reads."""
    by_rank = sorted(ranks.items(), key=lambda item: item[1])
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in by_rank)


def _tokenizer_json(ranks: dict[bytes, int], pattern: str, special: dict[str, int]) -> dict[str, Any]:
    """The same for Hugging Face: the pairs that merge, which tiktoken leaves out, follow from the ranks."""
    printable = printable_bytes()

    def shown(token: bytes) -> str:
        return "".join(printable[byte] for byte in token)

    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = _merged_below(token, rank, ranks)
            # More parts: no merge leads to it. Only a whole piece becomes such a token, by ignore_merges.
            if len(parts) == 2:
                merges.append([shown(parts[0]), shown(parts[1])])
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {
        "type": "Split",
        "pattern": {"Regex": patterns.for_oniguruma(pattern)},
        "behavior": "Isolated",
        "invert": False,
    }
    return {
        "version": "1.0",
        "added_tokens": [added_token(token, id_) for token, id_ in special.items()],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "ignore_merges": True,  # as in tiktoken: a piece that is a token is not merged from parts
            "vocab": {shown(token): rank for token, rank in ranks.items()},
            "merges": merges,
        },
    }


def _merged_below(token: bytes, limit: int, ranks: dict[bytes, int]) -> list[bytes]:
    """The parts of `token` after every merge of a rank below `limit`: the two that its own merge joins."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 1:
        pairs = [ranks.get(left + right, limit) for left, right in pairwise(parts)]
        best = min(pairs)
        if best >= limit:
            break
        at = pairs.index(best)  # of equal pairs the first
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _vocab_file(name: str) -> bytes:
    return files("gpt_pretrain.tokenizer.vocab").joinpath(name).read_bytes()
