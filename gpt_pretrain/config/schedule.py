"""Learning-rate schedules, a class each. Its `name` is its option; training/schedule.py gives its shape."""

from dataclasses import dataclass

from gpt_pretrain.config.fields import number, one_of


@dataclass(kw_only=True, slots=True)
class ScheduleConfig:
    """What all schedules share: a linear warm-up."""

    name: str
    warmup_steps: int | None = number(None, at_least=0)  # optimizer steps; None: by warmup_share
    warmup_share: float = number(0.0, at_least=0, below=1)  # of the run
    initial_lr: float | None = number(None, at_least=0)  # of step 0; None: peak / (warmup_steps + 1)
    min_lr: float | None = number(None, at_least=0)  # where a decay ends; None: a tenth of the peak


@dataclass(kw_only=True, slots=True)
class ConstantConfig(ScheduleConfig):
    name: str = one_of("constant")


@dataclass(kw_only=True, slots=True)
class CosineConfig(ScheduleConfig):
    name: str = one_of("cosine")


@dataclass(kw_only=True, slots=True)
class LinearConfig(ScheduleConfig):
    name: str = one_of("linear")


@dataclass(kw_only=True, slots=True)
class RisingConfig(ScheduleConfig):
    """From initial_lr up to optimizer.lr by equal factors: for sweep=lr_range."""

    name: str = one_of("rising")
    initial_lr: float | None = number(1e-5, above=0)  # of step 0


@dataclass(kw_only=True, slots=True)
class WSDConfig(ScheduleConfig):
    """Warm-up, stable, decay."""

    name: str = one_of("wsd")
    decay_share: float = number(0.2, above=0, at_most=1)  # of the steps after the warm-up, at the end
