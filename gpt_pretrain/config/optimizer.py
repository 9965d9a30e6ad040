"""Optimizers, a class each. Its `name` is its option; training/optim.py builds it."""

from dataclasses import dataclass

from gpt_pretrain.config.fields import number, one_of


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """What all optimizers share."""

    name: str
    lr: float = number(1e-3, above=0)  # the peak of the schedule
    weight_decay: float = number(0.1, at_least=0)  # a step takes lr x this off the decayed weights
    decay: str = one_of("matrices", "all")  # all: biases and norms too, as in the book


@dataclass(kw_only=True, slots=True)
class AdamWConfig(OptimizerConfig):
    name: str = one_of("adamw")
    beta1: float = number(0.9, at_least=0, below=1)  # of the gradient's mean: its share kept at a step
    beta2: float = number(0.95, at_least=0, below=1)  # the same for its square
    eps: float = number(1e-8, above=0)  # beside the square root that is divided by


@dataclass(kw_only=True, slots=True)
class AdamConfig(AdamWConfig):
    """Adam with its decay in the gradient (L2), not decoupled."""

    name: str = one_of("adam")
    weight_decay: float = number(0.0, at_least=0)  # added to the gradient, times the weight


@dataclass(kw_only=True, slots=True)
class SGDConfig(OptimizerConfig):
    name: str = one_of("sgd")
    lr: float = number(0.1, above=0)  # the peak of the schedule
    weight_decay: float = number(0.0, at_least=0)  # added to the gradient, times the weight
    momentum: float = number(0.9, at_least=0, below=1)  # share of the last update kept


@dataclass(kw_only=True, slots=True)
class MuonConfig(AdamWConfig):
    """Muon for the blocks' matrices, AdamW for the rest. Both make updates of one size: one `lr`."""

    name: str = one_of("muon")
    lr: float = number(1e-2, above=0)  # the peak of the schedule
    weight_decay: float = number(1.0, at_least=0)  # times lr; 1 holds weights near their first size
    momentum: float = number(0.95, at_least=0, below=1)  # share of the last update kept
