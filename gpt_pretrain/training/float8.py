"""A linear layer whose three products take factors of eight bits: GPUs from Ada and Hopper on have them.

Micikevicius et al. 2022, FP8 formats for deep learning: activations and weights have four bits of exponent
and three of mantissa, gradients five and two. Each tensor has a scale of its own, found anew at every step.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import ScalingType

from gpt_pretrain.loss import multiplied_in

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16  # what every side of a product must be a multiple of


def float8_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (..., C) times weight (N, C) transposed, plus bias (N,): (..., N).

    C, N and the rows of x must be multiples of 16. Gradients are the formula's, not the rounding's.
    """
    dtype = multiplied_in(x)
    product: Tensor = _Product.apply(x.flatten(0, -2), weight, dtype)
    product = product.unflatten(0, x.shape[:-1])
    return product if bias is None else product + bias.to(dtype)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        (narrow, scale), (narrow_weight, weight_scale) = _narrowed(x, FORWARD), _narrowed(weight, FORWARD)
        ctx.save_for_backward(narrow, scale, narrow_weight, weight_scale)
        ctx.dtypes = x.dtype, weight.dtype
        return _multiply(narrow, scale, narrow_weight.T, weight_scale, dtype)  # (R, C) -> (R, N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        narrow, scale, weight, weight_scale = ctx.saved_tensors
        gradient, gradient_scale = _narrowed(gradients[0], BACKWARD)
        in_dtype, weight_dtype = ctx.dtypes
        in_x = _multiply(gradient, gradient_scale, _columns(weight), weight_scale, in_dtype)
        in_weight = _multiply(gradient.T.contiguous(), gradient_scale, _columns(narrow), scale, weight_dtype)
        return in_x, in_weight, None


def _narrowed(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x / scale in eight bits, and the scale: x's largest number becomes the type's largest."""
    scale = x.abs().amax().float().clamp(min=1e-12) / torch.finfo(dtype).max
    return (x.float() / scale).to(dtype), scale


def _columns(x: Tensor) -> Tensor:
    """x, laid out column by column, as a second factor has to be."""
    return x.T.contiguous().T


def _multiply(a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """a (M, K), row by row, times b (K, N), column by column, summed in float32: (M, N)."""
    whole = ScalingType.TensorWise
    return F.scaled_mm(a, b, a_scale, whole, b_scale, whole, output_dtype=dtype)
