"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum, made orthogonal, for matrices.

torch.optim.Muon works in bfloat16 alone, which a CPU without such instructions multiplies twenty times slower
than float32, and takes one matrix after another.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gpt_pretrain.training.shards import as_shard, whole

# Of the quintic whose repeated use brings all singular values near 1, and how often it is used.
COEFFICIENTS, STEPS = (3.4445, -4.7750, 2.0315), 5


class Muon(Optimizer):
    """Updates as large as AdamW's, 0.2 a number (Moonshot 2025), so that one learning rate serves both.

    Part of `Joined`, which runs the closure.
    """

    def __init__(self, params: Iterable[Any], *, lr: float, weight_decay: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._momentum(parameter, group["momentum"])
                    by_shape[parameter.shape].append((parameter, update))
            for shape, entries in by_shape.items():
                # Those of all layers at once: (N, rows, columns)
                updates = orthogonal(torch.stack([whole(update) for _, update in entries]))
                lr = group["lr"] * 0.2 * math.sqrt(max(shape))
                for (parameter, _), update in zip(entries, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update = as_shard(update.to(parameter.dtype), parameter)
                    parameter.add_(update * -lr)  # alpha= raises where it overflows

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """The gradient's mean, looked at one step ahead (Nesterov)."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(mean, momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices (N, rows, columns) whose singular values are all about 1, by Newton and Schulz."""
    # To multiply by polynomials of x x^T instead takes a third less where x is wide, but float32 tells small
    # singular values' squares so badly that two ranks' losses part from one's by 1e-5 after 37 steps.
    a, b, c = COEFFICIENTS
    dtype = torch.bfloat16 if matrices.device.type == "cuda" else torch.float32
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices  # the smaller product: (rows, rows)
    x = x.to(dtype) / x.flatten(1).norm(dim=1)[:, None, None].clamp(min=1e-7).to(dtype)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x
