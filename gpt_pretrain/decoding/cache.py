"""The keys and values of all tokens so far, allocated once."""

import torch
from torch import Tensor

from gpt_pretrain.model import GPTModel


class KVCache:
    """Room for `context_length` tokens of B sequences that grow together."""

    def __init__(self, model: GPTModel, batch_size: int) -> None:
        config, like = model.config, model.tok_emb.weight
        shape = (
            config.n_layers,
            batch_size,
            config.n_heads,
            config.context_length,
            config.emb_dim // config.n_heads,
        )
        self.keys = like.new_empty(shape)
        self.values = like.new_empty(shape)
        self.length = 0

    def positions(self, n_tokens: int) -> Tensor:
        return torch.arange(self.length, self.length + n_tokens, device=self.keys.device)

    def layer(self, index: int) -> "LayerView":
        return LayerView(self, index)

    def advance(self, n_tokens: int) -> None:
        """After a forward pass over `n_tokens`."""
        self.length += n_tokens


class LayerView:
    def __init__(self, cache: KVCache, index: int) -> None:
        self.cache, self.keys, self.values = cache, cache.keys[index], cache.values[index]

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        start, end = self.cache.length, self.cache.length + keys.shape[2]
        self.keys[:, :, start:end] = keys
        self.values[:, :, start:end] = values
        visible = torch.ones(end - start, end, dtype=torch.bool, device=keys.device).tril(
            start
        )  # (T, start + T)
        return self.keys[:, :, :end], self.values[:, :, :end], visible
