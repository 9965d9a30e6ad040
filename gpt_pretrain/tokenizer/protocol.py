"""What every tokenizer offers, and what they share."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from gpt_pretrain.foreign import json_text
from gpt_pretrain.tokenizer.segmentation import segments

END_OF_TEXT = "<|endoftext|>"


class Tokenizer(Protocol):
    """Ids are 0 to vocab_size - 1. Decoding works on bytes, since a token may end inside a character.

    Lone surrogates, which no UTF-8 can hold, are read as U+FFFD.
    """

    name: str
    vocab_size: int
    end_of_text_id: int
    safe: re.Pattern[str]  # before which characters a text may be cut

    def encode(self, text: str, *, allow_special: bool = False) -> np.ndarray:
        """Token ids of `text`; with `allow_special`, `<|endoftext|>` in it becomes its own id, not text."""
        ...

    def encode_segment(self, text: str, *, allow_special: bool = False) -> np.ndarray:
        """Token ids of one segment, which is taken as it is."""
        ...

    def decode_bytes(self, token_ids: list[int]) -> bytes: ...

    def settings(self) -> dict[str, Any]:
        """Plain values that rebuild this tokenizer, together with `files`."""
        ...

    def files(self) -> dict[str, bytes]:
        """What makes `transformers.AutoTokenizer` read the folder of a checkpoint: name to content."""
        ...


class InSegments:
    """Tokenizes segment by segment, so that the tokens are those of the same text read from a stream."""

    safe: re.Pattern[str]

    def encode(self, text: str, *, allow_special: bool = False) -> np.ndarray:
        parts = [self.encode_segment(s, allow_special=allow_special) for s in segments([text], self.safe)]
        return np.concatenate(parts) if parts else np.empty(0, np.uint32)

    def encode_segment(self, text: str, *, allow_special: bool = False) -> np.ndarray:
        raise NotImplementedError


def decode(tokenizer: Tokenizer, token_ids: list[int]) -> str:
    """Text of token ids; bytes that are no UTF-8 become the replacement character."""
    return tokenizer.decode_bytes(token_ids).decode("utf-8", "replace")


def byte_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """UTF-8 bytes of text that each id stands for; none for the end of a text."""
    lengths = np.array([len(tokenizer.decode_bytes([id_])) for id_ in range(tokenizer.vocab_size)])
    # Its 13 characters stand in no text: bits per byte of many short documents came out far too low.
    lengths[tokenizer.end_of_text_id] = 0
    return lengths


def without_surrogates(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates replaced, as tiktoken's own `encode` does it."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def at_special(text: str, special: Mapping[str, int]) -> Iterator[str | int]:
    """Stretches of plain text and the ids of the special tokens between them, in order."""
    # The longest first: of alternatives the first that matches is taken, and one may begin another.
    pattern = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True))
    for part in re.split(f"({pattern})", text):
        if part in special:
            yield special[part]
        elif part:
            yield part


def added_token(content: str, id_: int) -> dict[str, Any]:
    """A special token as `tokenizer.json` lists it."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id_, "content": content, "special": True, **flags}


def tokenizer_config(end_of_text: str) -> dict[str, str]:
    """`tokenizer_config.json` for a folder with a `tokenizer.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end_of_text,
        "eos_token": end_of_text,
    }


def to_json(content: object) -> bytes:
    return json_text(content, indent=2, ensure_ascii=False).encode() + b"\n"


def printable_bytes() -> list[str]:
    """GPT-2's stand-in for each byte: itself where it is printable, else the next free character from 256.

    Source: `bytes_to_unicode` of github.com/openai/gpt-2, src/encoder.py.
    """
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
