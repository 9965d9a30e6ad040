"""The book's GPTModel (chapter 4), written again with its names: separate query, key and value, norms with
scale and shift, a stored mask. `fused` is the variant of its later chapters.
"""

import math

import torch
from torch import nn


class LayerNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        variance = x.var(dim=-1, keepdim=True, unbiased=False)
        return self.scale * (x - x.mean(dim=-1, keepdim=True)) / torch.sqrt(variance + 1e-5) + self.shift


class GELU(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        return self.layers(x)


class Attention(nn.Module):
    def __init__(self, width, context, heads, qkv_bias, fused):
        super().__init__()
        self.heads, self.fused = heads, fused
        if fused:
            self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
            self.proj = nn.Linear(width, width)
        else:
            self.W_query, self.W_key, self.W_value = (
                nn.Linear(width, width, bias=qkv_bias) for _ in range(3)
            )
            self.out_proj = nn.Linear(width, width)
            self.register_buffer("mask", torch.triu(torch.ones(context, context), diagonal=1))

    def forward(self, x):
        b, n, width = x.shape
        parts = self.qkv(x).chunk(3, -1) if self.fused else (self.W_query(x), self.W_key(x), self.W_value(x))
        q, k, v = (part.view(b, n, self.heads, -1).transpose(1, 2) for part in parts)
        scores = q @ k.transpose(2, 3)
        scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)
        context = (
            (torch.softmax(scores / k.shape[-1] ** 0.5, dim=-1) @ v).transpose(1, 2).reshape(b, n, width)
        )
        return (self.proj if self.fused else self.out_proj)(context)


class TransformerBlock(nn.Module):
    def __init__(self, width, context, heads, qkv_bias, fused):
        super().__init__()
        self.att = Attention(width, context, heads, qkv_bias, fused)
        self.ff = FeedForward(width)
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)

    def forward(self, x):
        x = x + self.att(self.norm1(x))
        return x + self.ff(self.norm2(x))


class BookModel(nn.Module):
    def __init__(self, vocab, context, width, heads, layers, qkv_bias=True, fused=False):
        super().__init__()
        self.tok_emb, self.pos_emb = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.trf_blocks = nn.Sequential(
            *[TransformerBlock(width, context, heads, qkv_bias, fused) for _ in range(layers)]
        )
        self.final_norm = LayerNorm(width)
        self.out_head = nn.Linear(width, vocab, bias=False)

    def forward(self, ids):
        x = self.tok_emb(ids) + self.pos_emb(torch.arange(ids.shape[1]))
        return self.out_head(self.final_norm(self.trf_blocks(x)))
