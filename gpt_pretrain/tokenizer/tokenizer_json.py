"""A Hugging Face `tokenizer.json` through the `tokenizers` library."""

import re
from typing import Any

import numpy as np

from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.tokenizer.protocol import (
    InSegments,
    printable_bytes,
    to_json,
    tokenizer_config,
    without_surrogates,
)
from gpt_pretrain.tokenizer.segmentation import BEFORE_PLAIN_SPACE

MOST_IDS = 1 << 24  # tables are as long as the largest id says, and that may come from elsewhere


class HuggingFaceTokenizer(InSegments):
    name = "huggingface"
    safe = BEFORE_PLAIN_SPACE

    def __init__(
        self, content: bytes, end_of_text: str, special_tokens: list[str] | None = None, path: str = ""
    ) -> None:
        """Raises ArtifactError for a file that is no tokenizer, InputError where it lacks `end_of_text`."""
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise InputError(
                "tokenizer=huggingface needs the tokenizers library: pip install 'gpt_pretrain[data]'"
            ) from error
        try:
            self._tokenizer = Tokenizer.from_str(content.decode())
        except Exception as error:  # the library raises bare Exception
            raise ArtifactError(f"{path or 'tokenizer.json'} is no tokenizer: {error}") from error
        self.end_of_text, self.special_tokens = end_of_text, special_tokens or []
        self._tokenizer.add_special_tokens(self.special_tokens)
        self._tokenizer.no_padding()  # which a file may ask for, as for cutting texts off
        self._tokenizer.no_truncation()
        end_of_text_id = self._tokenizer.token_to_id(end_of_text)
        if end_of_text_id is None:
            raise InputError(
                f"tokenizer.end_of_text={end_of_text} is not in {path or 'tokenizer.json'}: set one of "
                f"{', '.join(self._likely_ends()) or 'its own tokens, or add it to tokenizer.special_tokens'}"
            )
        self.end_of_text_id = end_of_text_id
        self._bytes_of = self._byte_table()
        self.vocab_size = max(self._bytes_of) + 1
        if self.vocab_size > MOST_IDS:
            raise ArtifactError(
                f"{path or 'tokenizer.json'} has the id {self.vocab_size - 1}, above {MOST_IDS}"
            )

    def encode_segment(self, text: str, *, allow_special: bool = False) -> np.ndarray:
        self._tokenizer.encode_special_tokens = not allow_special  # true means: as plain text
        encoded = self._tokenizer.encode(without_surrogates(text), add_special_tokens=False)
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
        """Bytes that each id is: byte-level stand-ins, SentencePiece's `▁` and `<0x0A>`, else itself."""
        added = self._tokenizer.get_added_tokens_decoder()
        byte_of = {character: byte for byte, character in enumerate(printable_bytes())}
        is_byte_level = "ByteLevel" in str(self._tokenizer.decoder)
        table = {}
        for token, id_ in self._tokenizer.get_vocab().items():
            if id_ in added:  # an added token stands for itself, in no alphabet of stand-ins
                table[id_] = token.encode()
            elif is_byte_level:
                table[id_] = b"".join(bytes([byte_of[c]]) if c in byte_of else c.encode() for c in token)
            elif match := re.fullmatch("<0x([0-9A-F]{2})>", token):
                table[id_] = bytes([int(match[1], 16)])
            else:
                table[id_] = token.replace("▁", " ").encode()
        return table
