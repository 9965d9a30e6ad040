"""Text to token ids and back. Tokens are a function of the text alone, however it was read."""

from gpt_pretrain.tokenizer.build import (
    TOKENIZER_FILE,
    build_tokenizer,
    load_tokenizer,
    settings_file,
    tokenizer_fingerprint,
)
from gpt_pretrain.tokenizer.protocol import END_OF_TEXT, Tokenizer, byte_lengths, decode, without_surrogates
from gpt_pretrain.tokenizer.segmentation import SEGMENT, segments

__all__ = [
    "END_OF_TEXT",
    "SEGMENT",
    "TOKENIZER_FILE",
    "Tokenizer",
    "build_tokenizer",
    "byte_lengths",
    "decode",
    "load_tokenizer",
    "segments",
    "settings_file",
    "tokenizer_fingerprint",
    "without_surrogates",
]
