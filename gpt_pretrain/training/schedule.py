"""Learning rates as pure functions of the optimizer step. The value of a step applies to that step."""

import math
from functools import singledispatch

from gpt_pretrain.config import (
    ConstantConfig,
    CosineConfig,
    LinearConfig,
    RisingConfig,
    ScheduleConfig,
    WSDConfig,
)


def warmup_steps(config: ScheduleConfig, total_steps: int) -> int:
    """Length of the warm-up in optimizer steps, from a count, else from a share of the run."""
    if config.warmup_steps is not None:
        return config.warmup_steps
    return int(config.warmup_share * total_steps)


def learning_rate(step: int, *, config: ScheduleConfig, peak: float, total_steps: int) -> float:
    """Learning rate of optimizer step `step` (0-based) in a run of `total_steps`.

    Linear from `initial_lr` to `peak` over the warm-up, then the schedule's own shape. Source: the book's
    appendix D.
    """
    warmup = warmup_steps(config, total_steps)
    if step < warmup:
        initial = peak / (warmup + 1) if config.initial_lr is None else config.initial_lr
        return initial + (peak - initial) * step / warmup
    floor = peak / 10 if config.min_lr is None else config.min_lr
    # 0 at the peak, below 1 at the last step
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return _decayed(config, progress, peak, floor)


@singledispatch
def _decayed(config: ScheduleConfig, progress: float, peak: float, floor: float) -> float:
    """The rate after the warm-up, at a share of the rest of the run."""
    raise AssertionError(f"no schedule for {type(config).__name__}")


@_decayed.register
def _(config: ConstantConfig, progress: float, peak: float, floor: float) -> float:
    return peak


@_decayed.register
def _(config: CosineConfig, progress: float, peak: float, floor: float) -> float:
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))


@_decayed.register
def _(config: LinearConfig, progress: float, peak: float, floor: float) -> float:
    return peak + (floor - peak) * progress


@_decayed.register
def _(config: RisingConfig, progress: float, peak: float, floor: float) -> float:
    low = peak / 1e5 if config.initial_lr is None else config.initial_lr
    return float(low * (peak / low) ** progress)


@_decayed.register
def _(config: WSDConfig, progress: float, peak: float, floor: float) -> float:
    decay = min(1.0, max(0.0, (progress - (1 - config.decay_share)) / config.decay_share))
    return peak + (floor - peak) * decay
