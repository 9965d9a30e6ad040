"""Text to token ids and back. Tokens are a function of the text alone, however it was read."""

from gpt_pretrain.tokenizer.bpe import ranks_file, read_ranks
from gpt_pretrain.tokenizer.build import build_tokenizer, tokenizer_fingerprint
from gpt_pretrain.tokenizer.folder import TOKENIZER_FILE, find_tokenizer, load_tokenizer, tokenizer_files
from gpt_pretrain.tokenizer.learn import count_pieces, learn_ranks
from gpt_pretrain.tokenizer.protocol import (
    END_OF_TEXT,
    Tokenizer,
    byte_lengths,
    decode,
    to_json,
    without_surrogates,
)
from gpt_pretrain.tokenizer.segmentation import SEGMENT, segments

__all__ = [
    "END_OF_TEXT",
    "SEGMENT",
    "TOKENIZER_FILE",
    "Tokenizer",
    "build_tokenizer",
    "byte_lengths",
    "count_pieces",
    "decode",
    "find_tokenizer",
    "learn_ranks",
    "load_tokenizer",
    "ranks_file",
    "read_ranks",
    "segments",
    "to_json",
    "tokenizer_files",
    "tokenizer_fingerprint",
    "without_surrogates",
]
