"""The GPT model, from small to large: attention, feed-forward, block, `GPTModel`.

Shapes: B batch, T tokens, C emb_dim, H heads, D head_dim, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.loss import head_loss, multiplied_in


class LayerCache(Protocol):
    """One layer's keys and values of the tokens that came before."""

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Add (B, H, T, D) keys and values; attention of the queries over all so far, (B, H, T, D)."""
        ...


class Cache(Protocol):
    """What generation keeps between forward passes."""

    def positions(self, n_tokens: int) -> Tensor:
        """Positions of the next `n_tokens` tokens: (T,) or (B, T)."""
        ...

    def layer(self, index: int) -> LayerCache: ...


class Dropout(nn.Dropout):
    """torch's, or with other draws in less than half its time on a CPU."""

    from_bits = False

    def forward(self, x: Tensor) -> Tensor:
        if not (self.from_bits and self.training and self.p):
            return super().forward(x)
        # 16 bits decide on a number: the share is exact to 1/131,072.
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        dropped = round(self.p * 2**16)
        return x * (bits >= dropped - 2**15).to(x.dtype).mul_(2**16 / (2**16 - dropped))


class Linear(nn.Linear):
    """torch's, or in training another product of the same factors."""

    trained_by: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.trained_by is None or not self.training:
            return super().forward(x)
        return self.trained_by(x, self.weight, self.bias)


class CausalSelfAttention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.drop_weights = Dropout(config.drop_rate)
        self.by_products = False  # instead of by torch's function
        # One product for queries, keys and values: without a bias it draws the same initial numbers as three
        # layers.
        self.qkv = Linear(config.emb_dim, 3 * config.emb_dim, bias=config.qkv_bias)
        self.out_proj = Linear(config.emb_dim, config.emb_dim)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.n_heads, -1))  # (B, T, C) -> (B, T, 3, H, D)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind()  # -> 3 of (B, H, T, D)
        if cache is not None:
            context = cache.attend(queries, keys, values)
        elif self.by_products and self.training:
            context = self._products(queries, keys, values)
        else:
            # Unlike a module, the function drops in evaluation mode too.
            drop_rate = self.drop_weights.p if self.training else 0.0
            # Scales by 1/sqrt(D) and masks later tokens itself: the book's model stores a (T, T) mask.
            context = F.scaled_dot_product_attention(
                queries, keys, values, dropout_p=drop_rate, is_causal=True
            )
        return self.out_proj(context.transpose(1, 2).flatten(2))  # (B, H, T, D) -> (B, T, C)

    def _products(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The same step by step: where weights are dropped, torch's function is no faster on a CPU."""
        n_rows, n_tokens = queries.shape[0], queries.shape[2]
        q, k, v = (x.flatten(0, 1) for x in (queries, keys, values))  # (B, H, T, D) -> (B * H, T, D)
        mask = q.new_full((n_tokens, n_tokens), -math.inf).triu(1)
        scores = torch.baddbmm(mask, q, k.mT, alpha=1 / math.sqrt(q.shape[-1]))  # -> (B * H, T, T)
        return (self.drop_weights(scores.softmax(-1)) @ v).unflatten(0, (n_rows, -1))


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.expand = Linear(config.emb_dim, 4 * config.emb_dim)
        self.contract = Linear(4 * config.emb_dim, config.emb_dim)

    def forward(self, x: Tensor) -> Tensor:
        # GPT-2's tanh form of GELU, not the exact one. (B, T, C) -> (B, T, 4C) -> (B, T, C)
        return self.contract(F.gelu(self.expand(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.att = CausalSelfAttention(config)
        self.ff = FeedForward(config)
        self.norm1 = nn.LayerNorm(config.emb_dim)
        self.norm2 = nn.LayerNorm(config.emb_dim)
        self.drop_shortcut = Dropout(config.drop_rate)  # holds no numbers, so one serves both
        self.recompute = False  # in the backward pass, instead of keeping what lies between: memory for time
        self.trained_by: Callable[..., Tensor] = Block.step  # what torch.compile makes of it, where asked for

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        if not self.training or cache is not None:  # of many shapes
            return self.step(x, cache)
        if self.recompute:
            return checkpoint(self.trained_by, self, x, use_reentrant=False)
        return self.trained_by(self, x)

    def step(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        # Norms before the parts, not after the sums as in the first transformer (Radford et al. 2019, 2.3).
        x = x + self.drop_shortcut(self.att(self.norm1(x), cache))
        return x + self.drop_shortcut(self.ff(self.norm2(x)))


class GPTModel(nn.Module):
    """A GPT-2-style decoder. Modules are built in the book's order, so one seed gives the book's numbers.

    No buffers: nothing but parameters has to be stored, loaded or initialised.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_emb = nn.Embedding(config.vocab_size, config.emb_dim)
        self.pos_emb = nn.Embedding(config.context_length, config.emb_dim)
        self.drop_emb = Dropout(config.drop_rate)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.final_norm = nn.LayerNorm(config.emb_dim)
        self.out_head = nn.Linear(config.emb_dim, config.vocab_size, bias=False)
        if config.init == "gpt2":
            self._init_gpt2()
        if config.tie_weights:
            # The embedding's numbers stay, under either init.
            self.out_head.weight = self.tok_emb.weight
        self.head_loss: Callable[..., Tensor] = head_loss  # or another way to the same, in training
        self.narrow_residual = False  # under autocast what the blocks add to is as narrow as its products

    def forward(self, token_ids: Tensor, cache: Cache | None = None, targets: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of `token_ids` (B, T); with `targets` their mean loss."""
        features = self.features(token_ids, cache)
        if targets is not None:
            return self.head_loss(features, self.out_head.weight, targets)
        logits: Tensor = self.out_head(features)  # (B, T, C) -> (B, T, V)
        return logits

    def features(self, token_ids: Tensor, cache: Cache | None = None) -> Tensor:
        """What the output head reads, (B, T, C): generation needs logits of the last position only."""
        n_tokens = token_ids.shape[1]
        positions = (
            torch.arange(n_tokens, device=token_ids.device) if cache is None else cache.positions(n_tokens)
        )
        # Positions are (T,), the same for every row, or (B, T).
        x = self.drop_emb(self.tok_emb(token_ids) + self.pos_emb(positions))  # (B, T) -> (B, T, C)
        if self.narrow_residual:
            x = x.to(multiplied_in(x))
        for index, block in enumerate(self.blocks):
            x = block(x, None if cache is None else cache.layer(index))
        return self.final_norm(x)

    def n_params(self) -> int:
        """Trainable numbers; tied weights count once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self) -> int:
        """FLOPs a token, forward and backward: six a weight, and attention's products (PaLM, appendix B)."""
        config = self.config
        # Only matrices multiply; the cost of biases and norms is left out.
        weights = sum(parameter.numel() for parameter in self.parameters() if parameter.ndim == 2)
        # Looking a row up is no product, but a tied token embedding is one, as the head.
        looked_up = self.pos_emb.weight.numel() + (0 if config.tie_weights else self.tok_emb.weight.numel())
        # Attention: scores and their sum of values, 2 C T each, three times with the backward pass. As in the
        # paper the causal half counts in full.
        return 6 * (weights - looked_up) + 12 * config.n_layers * config.emb_dim * config.context_length

    def _init_gpt2(self) -> None:
        """Normal 0.02; what is added to the residual stream is smaller by the root of the additions."""
        residual_std = 0.02 / math.sqrt(2 * self.config.n_layers)  # two additions a block
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                is_residual = name.endswith(("att.out_proj.weight", "ff.contract.weight"))
                nn.init.normal_(parameter, std=residual_std if is_residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)  # a norm's weights stay LayerNorm's ones
