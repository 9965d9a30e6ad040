"""Optimizers, and which parameters they decay."""

from collections import defaultdict
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from gpt_pretrain.config import AdamConfig, AdamWConfig, MuonConfig, OptimizerConfig, SGDConfig
from gpt_pretrain.training.muon import Muon

NamedParameters = list[tuple[str, nn.Parameter]]


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """The configured optimizer over all parameters, by name, so that its state can be stored by name."""
    return _build(config, list(model.named_parameters()))


@singledispatch
def _build(config: OptimizerConfig, named: NamedParameters) -> Optimizer:
    raise AssertionError(f"no optimizer for {type(config).__name__}")


@_build.register
def _(config: AdamWConfig, named: NamedParameters) -> Optimizer:
    return _adam(AdamW, named, config)


@_build.register
def _(config: AdamConfig, named: NamedParameters) -> Optimizer:
    return _adam(Adam, named, config)


@_build.register
def _(config: SGDConfig, named: NamedParameters) -> Optimizer:
    return SGD(decay_groups(named, config), lr=config.lr, momentum=config.momentum)


@_build.register
def _(config: MuonConfig, named: NamedParameters) -> Optimizer:
    hidden = [(name, p) for name, p in named if p.ndim == 2 and ".blocks." in f".{name}"]
    group = {"params": hidden, "name": "muon"}
    muon = Muon([group], lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum)
    others = [entry for entry in named if entry not in hidden]
    return Joined([muon, _adam(AdamW, others, config)])


def decay_groups(named: NamedParameters, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Groups with and without decay, named so: matrices decay, biases and norms only where `decay` is all."""
    decayed = [entry for entry in named if config.decay == "all" or entry[1].ndim >= 2]
    spared = [entry for entry in named if config.decay != "all" and entry[1].ndim < 2]
    groups = [
        {"params": decayed, "name": "decayed", "weight_decay": config.weight_decay},
        {"params": spared, "name": "not decayed", "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def parameter_names(groups: list[dict[str, Any]]) -> dict[int, str]:
    """The name of each parameter that a state of `groups` knows by its number."""
    return {
        number: name
        for group in groups
        for number, name in zip(group["params"], group["param_names"], strict=True)
    }


def rates_by_group(optimizer: Optimizer) -> dict[str, float]:
    """The learning rate of each group by the group's name; nothing where one rate serves all."""
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    return rates if len(set(rates.values())) > 1 else {}


def _adam(kind: type[Adam], named: NamedParameters, config: AdamWConfig) -> Optimizer:
    return kind(
        decay_groups(named, config),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,  # one kernel a step; on a CPU some ten times faster than the default
    )


class Joined(Optimizer):
    """Several optimizers as one, so that clipping, accumulation, schedules and resuming see a single one.

    Lightning counts a step for each optimizer it is given, which would double the step count.
    """

    def __init__(self, optimizers: list[Optimizer]) -> None:
        self.optimizers = optimizers
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        super().__init__([{**group, "params": list(group["params"])} for group in groups], defaults={})
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Let the parts see this optimizer's groups and state: a learning rate set here is theirs."""
        self.state = defaultdict(dict, self.state)
        groups = iter(self.param_groups)
        for optimizer in self.optimizers:
            optimizer.param_groups = [next(groups) for _ in optimizer.param_groups]
            optimizer.state = self.state
