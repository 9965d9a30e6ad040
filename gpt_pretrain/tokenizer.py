"""Text to token ids and back: GPT-2's byte-pair encoding, and bytes."""

import json
from functools import cache
from importlib.resources import files
from typing import Protocol

import numpy as np
import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str

END_OF_TEXT = "<|endoftext|>"


class Tokenizer(Protocol):
    """Ids are 0 to vocab_size - 1. Decoding works on bytes, since a token may end inside a character."""

    name: str
    vocab_size: int
    end_of_text_id: int

    def encode(self, text: str, *, allow_special: bool = False) -> np.ndarray:
        """Token ids of `text`; with `allow_special`, `<|endoftext|>` in it becomes its own id, not text."""
        ...

    def decode_bytes(self, token_ids: list[int]) -> bytes: ...

    def files(self) -> dict[str, bytes]:
        """What makes `transformers.AutoTokenizer` read the folder of a checkpoint: name to content."""
        ...


class GPT2Tokenizer:
    """GPT-2's byte-level BPE through tiktoken, from the ranks inside the package: nothing is downloaded."""

    name = "gpt2"

    def __init__(self) -> None:
        ids = json.loads(_vocab_file("encoder.json"))
        self.end_of_text_id = ids.pop(END_OF_TEXT)
        byte_of = {character: byte for byte, character in enumerate(_printable_bytes())}
        self._encoding = tiktoken.Encoding(
            "gpt2",
            pat_str=r50k_pat_str,
            # A token's id is its merge rank, so the published ids are the ranks.
            mergeable_ranks={bytes(byte_of[c] for c in token): rank for token, rank in ids.items()},
            special_tokens={END_OF_TEXT: self.end_of_text_id},
        )
        self.vocab_size = self._encoding.n_vocab

    def encode(self, text: str, *, allow_special: bool = False) -> np.ndarray:
        allowed = {END_OF_TEXT} if allow_special else set()
        return self._encoding.encode_to_numpy(text, allowed_special=allowed, disallowed_special=())

    def decode_bytes(self, token_ids: list[int]) -> bytes:
        return self._encoding.decode_bytes([id_ for id_ in token_ids if id_ < self.vocab_size])

    def files(self) -> dict[str, bytes]:
        return {
            "vocab.json": _vocab_file("encoder.json"),
            "merges.txt": _vocab_file("vocab.bpe"),
            "tokenizer_config.json": _json(
                {
                    "tokenizer_class": "GPT2Tokenizer",
                    "bos_token": END_OF_TEXT,
                    "eos_token": END_OF_TEXT,
                    "unk_token": END_OF_TEXT,
                }
            ),
        }


class ByteTokenizer:
    """One token a byte of UTF-8, and id 256 for the end of a text."""

    name = "bytes"
    vocab_size = 257
    end_of_text_id = 256

    def encode(self, text: str, *, allow_special: bool = False) -> np.ndarray:
        if not allow_special:
            return np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.uint32)
        ids: list[int] = []
        for index, part in enumerate(text.split(END_OF_TEXT)):
            ids += [self.end_of_text_id] * (index > 0) + list(part.encode("utf-8", "replace"))
        return np.array(ids, np.uint32)

    def decode_bytes(self, token_ids: list[int]) -> bytes:
        return b"".join(
            END_OF_TEXT.encode() if id_ == self.end_of_text_id else bytes([id_])
            for id_ in token_ids
            if id_ < self.vocab_size
        )

    def files(self) -> dict[str, bytes]:
        characters = {character: byte for byte, character in enumerate(_printable_bytes())}
        special = {"id": 256, "content": END_OF_TEXT, "special": True}
        special |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        byte_level = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        }
        tokenizer = {
            "version": "1.0",
            "added_tokens": [special],
            "pre_tokenizer": byte_level,
            "decoder": byte_level,
            "model": {"type": "BPE", "vocab": characters, "merges": []},
        }
        return {
            "tokenizer.json": _json(tokenizer),
            "tokenizer_config.json": _json(
                {
                    "tokenizer_class": "PreTrainedTokenizerFast",
                    "bos_token": END_OF_TEXT,
                    "eos_token": END_OF_TEXT,
                }
            ),
        }


@cache
def build_tokenizer(name: str) -> Tokenizer:
    return GPT2Tokenizer() if name == "gpt2" else ByteTokenizer()


def decode(tokenizer: Tokenizer, token_ids: list[int]) -> str:
    """Text of token ids; bytes that are no UTF-8 become the replacement character."""
    return tokenizer.decode_bytes(token_ids).decode("utf-8", "replace")


def _vocab_file(name: str) -> bytes:
    return files("gpt_pretrain.vocab").joinpath(name).read_bytes()


def _json(content: object) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def _printable_bytes() -> list[str]:
    """GPT-2's printable stand-in for each byte: itself where it is printable, else the next free character
    from 256.

    Source: `bytes_to_unicode` of github.com/openai/gpt-2, src/encoder.py.
    """
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
