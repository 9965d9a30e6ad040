"""Gradient norm, weight norm and size of the update, layer by layer: logger.layers=true."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gpt_pretrain.training.shards import is_sharded, local


class Layers:
    """Measured in the steps that are logged only: for those the weights are kept from before the step.

    Nothing is read from the device before `report`, and then all numbers at once. Where the model lies in
    shards every process must measure: each sees its part, and `report` adds them up.
    """

    def __init__(self) -> None:
        self.before: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}

    def step_begins(self, model: nn.Module) -> None:
        """With the gradients there, not clipped yet, and the weights as they were."""
        named = [(name, p) for name, p in model.named_parameters() if p.grad is not None]
        self.before = {name: local(p.detach()).clone() for name, p in named}
        self.gradients = _squares((name, local(p.grad)) for name, p in named if p.grad is not None)

    def report(self, model: nn.Module) -> dict[str, float]:
        """By layer, after the step: norms of gradient and weights, and the update's share of the weights'."""
        if not self.before:
            return {}
        after = {name: local(p.detach()) for name, p in model.named_parameters() if name in self.before}
        weights = _squares(after.items())
        updates = _squares((name, tensor - self.before[name]) for name, tensor in after.items())
        table = torch.stack([torch.stack(list(of.values())) for of in (self.gradients, weights, updates)])
        if is_sharded(model):
            torch.distributed.all_reduce(table)
        gradient, weight, update = table.sqrt().tolist()
        told: dict[str, float] = {}
        for at, layer in enumerate(weights):
            told[f"grad_norm/{layer}"] = gradient[at]
            told[f"weight_norm/{layer}"] = weight[at]
            told[f"update_ratio/{layer}"] = update[at] / weight[at] if weight[at] else 0.0
        self.before, self.gradients = {}, {}
        return told


def layer_of(name: str) -> str:
    """The layer that a parameter belongs to: `block 03`, or a part outside the blocks by its own name."""
    found = re.match(r"blocks\.(\d+)\.", name)
    return f"block {int(found[1]):02d}" if found else name.split(".")[0]


def _squares(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The sum over each layer's tensors of their squares, in float32."""
    squares: dict[str, list[Tensor]] = {}
    for name, tensor in named:
        squares.setdefault(layer_of(name), []).append(tensor.float().square().sum())
    return {layer: torch.stack(parts).sum() for layer, parts in squares.items()}
