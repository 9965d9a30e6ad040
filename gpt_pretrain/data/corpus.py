"""A source as token ids, split into training and validation data."""

from dataclasses import dataclass

import numpy as np

from gpt_pretrain.config import DataConfig
from gpt_pretrain.data.sources import read_text
from gpt_pretrain.data.windows import count_windows
from gpt_pretrain.errors import InputError
from gpt_pretrain.tokenizer import Tokenizer


@dataclass(kw_only=True, slots=True)
class Corpus:
    train: np.ndarray  # token ids
    val: np.ndarray
    n_characters: int
    val_bytes_per_token: float  # UTF-8 bytes


def load_corpus(config: DataConfig, tokenizer: Tokenizer) -> Corpus:
    """Read, split by characters (the book, chapter 5) and tokenize the configured source."""
    text = read_text(config)
    cut = int((1 - config.val_fraction) * len(text))
    train, val = tokenizer.encode(text[:cut]), tokenizer.encode(text[cut:])
    return Corpus(
        train=train,
        val=val,
        n_characters=len(text),
        val_bytes_per_token=len(text[cut:].encode()) / max(1, len(val)),
    )


def check_windows(corpus: Corpus, config: DataConfig, context_length: int) -> None:
    """Raise InputError where a split has no whole window, with what would do."""
    n_all = len(corpus.train) + len(corpus.val)
    for split, tokens, remedy in (
        ("training", corpus.train, "a smaller data.val_fraction"),
        ("validation", corpus.val, "a larger data.val_fraction"),
    ):
        if count_windows(len(tokens), context_length, context_length) == 0:
            raise InputError(
                f"data.source={config.source} has {len(tokens)} {split} tokens of {n_all}, "
                f"too few for one window: {context_length + 1} are needed\ngive more text, {remedy}, "
                f"or a context that fits: model.context_length={max(1, len(tokens) - 1)}"
            )
