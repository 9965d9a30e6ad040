"""The keys and values of all tokens so far, allocated once.

Rows may have different lengths: each has its own positions, and sees the keys up to them. What stands behind
a row's length (padding) is never seen and overwritten later.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt_pretrain.model import GPTModel


class KVCache:
    """Room for `capacity` tokens of each of B sequences."""

    def __init__(self, model: GPTModel, batch_size: int, capacity: int) -> None:
        config, like = model.config, model.tok_emb.weight
        n_heads, head_dim = config.n_heads, config.emb_dim // config.n_heads
        shape = (config.n_layers, batch_size, n_heads, capacity, head_dim)  # (L, B, H, capacity, D)
        # Zeros: what is not seen has weight 0, and 0 times a NaN left in memory is NaN.
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)
        self.lengths = [0] * batch_size
        # Of a forward pass: its tokens' positions, (T,) or (B, T); where the longest row ends; what is seen.
        self.now, self.end, self.causal = Tensor(), 0, True
        self.mask: Tensor | None = None

    def positions(self, n_tokens: int) -> Tensor:
        """Begin a forward pass: its tokens' positions, (T,) where all rows are equally long, else (B, T)."""
        device, start, end = self.keys.device, min(self.lengths), max(self.lengths) + n_tokens
        # With nothing cached, plain causal attention serves ragged rows too: padding stands behind a row's
        # own tokens, which look back only.
        new = torch.arange(n_tokens, device=device)
        self.end, self.causal, self.mask = end, end == n_tokens, None
        self.now = new + start
        if start + n_tokens < end:  # ragged
            self.now = torch.tensor(self.lengths, device=device)[:, None] + new
        # One token in rows of one length sees all there is: it needs no mask.
        if end > n_tokens and (n_tokens > 1 or self.now.ndim == 2):
            visible = torch.arange(end, device=device) <= self.now[..., None]  # (T, end) or (B, T, end)
            self.mask = visible if visible.ndim == 2 else visible[:, None]  # (B, 1, T, end), for all heads
        return self.now

    def layer(self, index: int) -> "LayerView":
        return LayerView(self, index)

    def advance(self, n_tokens: list[int]) -> None:
        """After a forward pass of which row i's first `n_tokens[i]` tokens are its own."""
        self.lengths = [length + new for length, new in zip(self.lengths, n_tokens, strict=True)]

    def clear(self) -> None:
        """Forget all tokens; what is stored of them is never seen, and overwritten later."""
        self.lengths = [0] * len(self.lengths)

    def select(self, rows: list[int]) -> None:
        """Keep these rows, in this order; a row may come more than once."""
        if rows == list(range(len(self.lengths))):
            return
        end = max(self.lengths)
        self.keys, self.values = _picked(self.keys, rows, end), _picked(self.values, rows, end)
        self.lengths = [self.lengths[row] for row in rows]


class LayerView:
    """One layer of a cache."""

    def __init__(self, cache: KVCache, index: int) -> None:
        self.cache, self.keys, self.values = cache, cache.keys[index], cache.values[index]

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Add (B, H, T, D) keys and values; attention of the queries over all so far, (B, H, T, D)."""
        now, end = self.cache.now, self.cache.end
        if now.ndim == 1:
            start, n_new = end - keys.shape[2], keys.shape[2]
            self.keys.narrow(2, start, n_new).copy_(keys)
            self.values.narrow(2, start, n_new).copy_(values)
        else:
            # Indices on both sides of a slice put their dimensions first: what is written is (B, T, H, D).
            rows = torch.arange(len(now), device=now.device)[:, None]
            self.keys[rows, :, now] = keys.transpose(1, 2)  # (B, H, T, D) -> (B, T, H, D)
            self.values[rows, :, now] = values.transpose(1, 2)
        if self.cache.causal:
            # The new keys are all there are.
            return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        seen = (self.keys.narrow(2, 0, end), self.values.narrow(2, 0, end))
        return F.scaled_dot_product_attention(queries, *seen, attn_mask=self.cache.mask)


def _picked(tensor: Tensor, rows: list[int], end: int) -> Tensor:
    """Rows (dimension 1) of the first `end` tokens (dimension 3), with the room behind them."""
    picked = tensor.new_zeros((tensor.shape[0], len(rows), *tensor.shape[2:]))
    picked[:, :, :, :end] = tensor[:, rows, :, :end]
    return picked
