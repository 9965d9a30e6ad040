"""Optimizers, a class each. Its `name` is its option; training/optim.py builds it."""

from dataclasses import dataclass

from gpt_pretrain.config.fields import number, one_of


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """What all optimizers share."""

    name: str
    lr: float = number(1e-3, above=0)  # the peak of the schedule
    weight_decay: float = number(0.1, at_least=0)
    decay: str = one_of("matrices", "all")  # all: biases and norms too, as in the book


@dataclass(kw_only=True, slots=True)
class AdamWConfig(OptimizerConfig):
    name: str = one_of("adamw")
    beta1: float = number(0.9, at_least=0, below=1)
    beta2: float = number(0.95, at_least=0, below=1)
    eps: float = number(1e-8, above=0)


@dataclass(kw_only=True, slots=True)
class AdamConfig(AdamWConfig):
    """Adam with its decay in the gradient (L2), not decoupled."""

    name: str = one_of("adam")
    weight_decay: float = number(0.0, at_least=0)


@dataclass(kw_only=True, slots=True)
class SGDConfig(OptimizerConfig):
    name: str = one_of("sgd")
    lr: float = number(0.1, above=0)
    weight_decay: float = number(0.0, at_least=0)
    momentum: float = number(0.9, at_least=0, below=1)


@dataclass(kw_only=True, slots=True)
class MuonConfig(AdamWConfig):
    """Muon for the blocks' matrices, AdamW for the rest. Both make updates of one size: one `lr`."""

    name: str = one_of("muon")
    momentum: float = number(0.95, at_least=0, below=1)
