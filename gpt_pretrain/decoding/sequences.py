"""Token sequences that grow, and what the model makes of their last tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gpt_pretrain.decoding.key_values import KVCache
from gpt_pretrain.errors import InputError
from gpt_pretrain.model import GPTModel


def window_start(length: int, context_length: int, slide: int) -> int:
    """Where in a sequence of `length` tokens the model begins to read.

    A full context moves on by `slide` tokens at a time. All positions change then, so that the window is
    encoded anew: at every token with 1, the book's rule, which always reads the last `context_length` tokens;
    once in `slide` tokens above that, reading between `context_length - slide + 1` and `context_length`.
    A function of the length only: neither the prompt's share nor what is cached matters.
    """
    beyond = max(0, length - context_length)
    return -(-beyond // slide) * slide  # rounded up to whole slides


class Sequences:
    """B sequences of any lengths, each as if it were alone. `tokens` is read only: `append` and `select`."""

    def __init__(
        self,
        model: GPTModel,
        prompts: Sequence[Sequence[int]],
        *,
        room: int,
        slide: int = 1,
        keep_hidden: bool = False,
    ) -> None:
        """`room`: the most tokens that will be appended. `keep_hidden`: keep the features of every token.

        Raises InputError for a prompt without a token.
        """
        if any(len(prompt) == 0 for prompt in prompts):
            raise InputError("a prompt has no token: give each at least one to continue from")
        self.model, self.context_length = model, model.config.context_length
        self.tokens = [list(prompt) for prompt in prompts]
        self.slide = min(slide, self.context_length)  # a longer one would skip the newest tokens
        capacity = min(self.context_length, max(map(len, self.tokens)) + room)
        self.cache = KVCache(model, len(self.tokens), capacity)
        self.starts = [-1] * len(self.tokens)  # nothing encoded
        self.keep_hidden, self.hidden = keep_hidden, Tensor()  # (B, T, C) of the windows, if kept

    def logits(self) -> Tensor:
        """Logits (B, V) of the token after each sequence, in float32."""
        return self.model.out_head(self.features()).float()

    def features(self) -> Tensor:
        """What the output head reads of each sequence's last token, (B, C)."""
        starts = [window_start(len(tokens), self.context_length, self.slide) for tokens in self.tokens]
        # Positions are absolute: once a window moves, no key that is cached fits. All rows begin anew then.
        if starts != self.starts:
            self.starts = starts
            self.cache.clear()
        unseen = [
            tokens[start + length :]
            for tokens, start, length in zip(self.tokens, starts, self.cache.lengths, strict=True)
        ]
        features = self.model.features(self._padded(unseen), self.cache)
        if self.keep_hidden:
            # No length: the window has just begun anew. (B, T, C)
            self.hidden = torch.cat([self.hidden, features], 1) if min(self.cache.lengths) else features
        lengths = [len(new) for new in unseen]
        self.cache.advance(lengths)
        # (B, T, C) -> (B, C): in ragged rows the last token of each, not the padding behind it.
        if min(lengths) == features.shape[1]:
            return features[:, -1]
        return features[torch.arange(len(lengths)), torch.tensor(lengths) - 1]

    def append(self, chosen: Sequence[int]) -> None:
        """Add a token to each sequence; the model reads it with the next `logits` or `features`."""
        for tokens, token in zip(self.tokens, chosen, strict=True):
            tokens.append(token)

    def select(self, rows: list[int]) -> None:
        """Keep these sequences, in this order; one may come more than once."""
        self.tokens = [list(self.tokens[row]) for row in rows]
        self.starts = [self.starts[row] for row in rows]
        self.cache.select(rows)
        if self.keep_hidden:
            self.hidden = self.hidden[rows]

    def _padded(self, rows: list[list[int]]) -> Tensor:
        """(B, T), with zeros behind the shorter rows."""
        longest = max(map(len, rows))
        padded = [row + [0] * (longest - len(row)) for row in rows]
        return torch.tensor(padded, device=self.model.tok_emb.weight.device)
