"""Blocks for generation, and linear layers of float32, bfloat16 and int8 weights by torch's functions."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt_pretrain.model import Block, LayerCache

# FBGEMM's kernels are part of PyTorch on x86; elsewhere PyTorch's own bfloat16 product serves.
HAS_FBGEMM = "fbgemm" in torch.backends.quantized.supported_engines
_EMBEDDING_BAG = torch.ops.quantized.embedding_bag_byte_rowwise_offsets.default
GROUP = 96  # outputs; measured with 64 to 1536
FEW_ROWS = 10  # up to which sums take less time than unpacking the matrix for a product in float32


class GenerationBlock(nn.Module):
    """`Block` for generation: rows instead of sequences, and no module inside.

    Calls of modules and dropouts that drop nothing take a fifth of a step of one token.
    """

    def __init__(self, block: Block, product: "type[Product]") -> None:
        super().__init__()
        self.n_heads = block.att.n_heads
        self.norms = {"norm1": block.norm1, "norm2": block.norm2}
        self.products = {
            "qkv": product(block.att.qkv),
            "out_proj": product(block.att.out_proj),
            "expand": product(block.ff.expand),
            "contract": product(block.ff.contract),
        }
        self.norm1, self.norm2 = map(_norm, self.norms.values())
        self.qkv, self.out_proj, self.expand, self.contract = (each.rows for each in self.products.values())

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        shape = x.shape  # (B, T, C)
        x = x.view(-1, shape[2])  # (B, T, C) -> (B * T, C)
        # (B * T, C) -> (B * T, 3C) -> (B, T, 3, H, D)
        qkv = self.qkv(self.norm1(x)).view(*shape[:2], 3, self.n_heads, -1)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind()  # (B, T, 3, H, D) -> 3 of (B, H, T, D)
        if cache is not None:
            context = cache.attend(queries, keys, values)
        else:
            context = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.out_proj(context.transpose(1, 2).reshape(x.shape))  # (B, H, T, D) -> (B * T, C)
        x += self.contract(F.gelu(self.expand(self.norm2(x)), approximate="tanh"))  # x is ours by now
        return x.view(shape)


def _norm(norm: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    shape, weight, bias, eps = norm.normalized_shape, norm.weight.detach(), norm.bias.detach(), norm.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


class Product(nn.Module):
    """A linear layer in some layout."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.n_out, self.n_in = linear.weight.shape
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.lay_out(linear.weight.detach())

    def lay_out(self, weight: Tensor) -> None:
        """Make of the weight (out, in) what `rows` needs."""
        raise NotImplementedError

    def rows(self, x: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)"""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.rows(x.reshape(-1, self.n_in)).view(*x.shape[:-1], self.n_out)


class FloatProduct(Product):
    """float32; a matrix with more outputs than inputs lies in memory input by input.

    Measured for one row of 124M on two cores: (50257, 768) 5.8 ms instead of 9.7, (2304, 768) 0.33 instead of
    0.48, but (768, 3072) 0.57 instead of 0.44.
    """

    def lay_out(self, weight: Tensor) -> None:
        # a copy: the token embedding keeps its own
        self.weight = weight.t().contiguous().t() if self.n_out > self.n_in else weight

    def rows(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class HalfProduct(Product):
    """Weights rounded to bfloat16, 16 bits each, times float32 activations.

    PyTorch's own bfloat16 product is slow on processors without bfloat16 instructions (16 rows take five
    times as long as in float32). FBGEMM's packed halves hold the rounded weights: exactly from 1.5e-5 to
    65504 in size, to 3e-8 below, as 65504 above.
    """

    def lay_out(self, weight: Tensor) -> None:
        self.packed = torch.ops.quantized.linear_prepack_fp16(weight.bfloat16().float(), self.bias)

    def rows(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic_fp16(x, self.packed)


def to_levels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (out, in) as int8 from -127 to 127, and the scale of each output, (out,)."""
    scale = weight.abs().amax(1).div(127).clamp(min=torch.finfo(torch.float32).tiny)
    return weight.div(scale[:, None]).round().to(torch.int8), scale


class Int8Product(Product):
    """Weights as bytes, with a scale for each output.

    The product of a row is the sum of the matrix's rows, each times its activation: what FBGEMM's embedding
    bag computes, in float32, reading the weights in the order in which they lie in memory. Products of
    integers read no faster here and would round the activations, which have outliers.
    """

    def lay_out(self, weight: Tensor) -> None:
        # (out, in) -> (groups, GROUP, in) -> (groups * in, GROUP); the last group is filled up with zeros.
        self.n_groups = -(-self.n_out // GROUP)
        padding = self.n_groups * GROUP - self.n_out
        levels, scale = to_levels(weight)
        groups = F.pad(levels, (0, 0, 0, padding)).view(self.n_groups, GROUP, self.n_in)
        table = groups.transpose(1, 2).reshape(-1, GROUP).view(torch.uint8) ^ 128  # from 1 to 255
        # A row of the bag's ends with its scale and with what byte 0 stands for.
        end = torch.tensor([1.0, -128.0]).view(torch.uint8)
        self.packed = torch.cat([table, end.expand(len(table), -1)], 1)
        self.scale = F.pad(scale, (0, padding)).view(self.n_groups, 1, GROUP)
        if self.bias is not None:
            self.bias = F.pad(self.bias, (0, padding)).view(self.n_groups, 1, GROUP)

    def rows(self, x: Tensor) -> Tensor:
        n_rows = x.shape[0]
        if n_rows > FEW_ROWS:
            table = torch.ops.quantized.embedding_bag_byte_unpack(self.packed)
            y = x @ table.view(self.n_groups, self.n_in, GROUP)  # (groups, rows, GROUP)
        else:
            indices, offsets, ones = _bags(self.n_groups, n_rows, self.n_in)
            # Reshaped, since the last tokens' features are a slice of all tokens'.
            copies = torch.mm(ones, x.reshape(1, -1)).view(-1)  # one for each group; faster than expand
            # Mode 0, sums, each row times its activation; the last offset is the end of all.
            y = _EMBEDDING_BAG(self.packed, indices, offsets, False, 0, False, copies, None, True)
            y = y.view(self.n_groups, n_rows, GROUP)  # (groups * rows, GROUP) -> (groups, rows, GROUP)
        y.mul_(self.scale)
        if self.bias is not None:
            y.add_(self.bias)
        if n_rows > 1:
            y = y.transpose(0, 1)  # -> (rows, groups, GROUP), as one row lies already
        return y.reshape(n_rows, self.n_groups * GROUP).narrow(1, 0, self.n_out)


@lru_cache(maxsize=16)
def _bags(n_groups: int, n_rows: int, n_in: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows of a table each sum takes, where the next sum begins, and a one for each group.

    All sums of a group stand together, so its weights come from memory once.
    """
    table_rows = torch.arange(n_groups * n_in, dtype=torch.int32).view(n_groups, 1, n_in)
    offsets = torch.arange(0, n_groups * n_rows * n_in + 1, n_in, dtype=torch.int32)
    return table_rows.repeat(1, n_rows, 1).flatten(), offsets, torch.ones(n_groups, 1)


PRODUCTS: dict[str, type[Product]] = {"float32": FloatProduct, "bfloat16": HalfProduct, "int8": Int8Product}
