"""Tokenizers without a learned vocabulary: bytes, and the characters of a text (nanoGPT's Shakespeare)."""

from typing import Any

import numpy as np

from gpt_pretrain.errors import InputError
from gpt_pretrain.tokenizer.protocol import (
    END_OF_TEXT,
    InSegments,
    added_token,
    at_special,
    printable_bytes,
    to_json,
    tokenizer_config,
    without_surrogates,
)
from gpt_pretrain.tokenizer.segmentation import BEFORE_ANY_SPACE


class ByteTokenizer(InSegments):
    """One token a byte of UTF-8, id 256 for the end of a text, then the added special tokens."""

    name = "bytes"
    end_of_text_id = 256
    safe = BEFORE_ANY_SPACE

    def __init__(self, special_tokens: list[str] | None = None) -> None:
        self.special_tokens = special_tokens or []
        self.special = _special(256, self.special_tokens)
        self.vocab_size = 256 + len(self.special)
        self._bytes_of = [bytes([byte]) for byte in range(256)] + [token.encode() for token in self.special]

    def encode_segment(self, text: str, *, allow_special: bool = False) -> np.ndarray:
        if not allow_special:
            return np.frombuffer(without_surrogates(text).encode(), np.uint8).astype(np.uint32)
        parts = [
            np.array([part], np.uint32) if isinstance(part, int) else self.encode_segment(part)
            for part in at_special(text, self.special)
        ]
        return np.concatenate([np.empty(0, np.uint32), *parts])

    def decode_bytes(self, token_ids: list[int]) -> bytes:
        return b"".join(self._bytes_of[id_] for id_ in token_ids if id_ < self.vocab_size)

    def settings(self) -> dict[str, Any]:
        return {"name": self.name, "special_tokens": self.special_tokens}

    def files(self) -> dict[str, bytes]:
        byte_level = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        }
        vocab = {character: byte for byte, character in enumerate(printable_bytes())}
        return _files(self.special, vocab, {"pre_tokenizer": byte_level, "decoder": byte_level})


class CharacterTokenizer(InSegments):
    """One token a character of a fixed alphabet, in code point order: nanoGPT's shakespeare_char."""

    name = "characters"
    safe = BEFORE_ANY_SPACE

    def __init__(self, alphabet: str, special_tokens: list[str] | None = None) -> None:
        self.alphabet = "".join(sorted({without_surrogates(character) for character in alphabet}))
        self.special_tokens = special_tokens or []
        n = len(self.alphabet)
        self.end_of_text_id = n
        self.special = _special(n, self.special_tokens)
        self.vocab_size = n + len(self.special)
        self._code_points = np.frombuffer(self.alphabet.encode("utf-32-le"), np.uint32)
        self._bytes_of = [token.encode() for token in [*self.alphabet, *self.special]]

    def encode_segment(self, text: str, *, allow_special: bool = False) -> np.ndarray:
        """Raises InputError for a character outside the alphabet."""
        if allow_special:
            parts = [
                np.array([part], np.uint32) if isinstance(part, int) else self.encode_segment(part)
                for part in at_special(text, self.special)
            ]
            return np.concatenate([np.empty(0, np.uint32), *parts])
        # UTF-32 is a number a character, so that all are looked up at once.
        wanted = np.frombuffer(without_surrogates(text).encode("utf-32-le"), np.uint32)
        ids = np.searchsorted(self._code_points, wanted)
        # Beyond the last character searchsorted gives a place where none is.
        known = self._code_points[np.minimum(ids, len(self._code_points) - 1)] == wanted
        if not known.all():
            stranger = chr(int(wanted[~known][0]))
            raise InputError(
                f"tokenizer=characters lacks {stranger!r}: {len(self.alphabet)} characters are known"
                "\nleave it out, or take its alphabet from a text that holds it: tokenizer.path=<text>"
            )
        return ids.astype(np.uint32)

    def decode_bytes(self, token_ids: list[int]) -> bytes:
        return b"".join(self._bytes_of[id_] for id_ in token_ids if id_ < self.vocab_size)

    def settings(self) -> dict[str, Any]:
        return {"name": self.name, "alphabet": self.alphabet, "special_tokens": self.special_tokens}

    def files(self) -> dict[str, bytes]:
        vocab = {character: id_ for id_, character in enumerate(self.alphabet)}
        return _files(self.special, vocab, {"decoder": {"type": "Fuse"}})


def _special(first: int, added: list[str]) -> dict[str, int]:
    """The end of a text, then what was added, which may name that, too."""
    return {token: first + n for n, token in enumerate(dict.fromkeys([END_OF_TEXT, *added]))}


def _files(special: dict[str, int], vocab: dict[str, int], parts: dict[str, Any]) -> dict[str, bytes]:
    added = [added_token(token, id_) for token, id_ in special.items()]
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    return {
        "tokenizer.json": to_json({"version": "1.0", "added_tokens": added, **parts, "model": model}),
        "tokenizer_config.json": to_json(tokenizer_config(END_OF_TEXT)),
    }
