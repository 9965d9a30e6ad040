"""Learning rates as pure functions of the optimizer step. The value of a step applies to that step."""

import math

from gpt_pretrain.config import ConstantConfig, CosineConfig, LinearConfig, ScheduleConfig, WSDConfig


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
    match config:
        case CosineConfig():
            return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))
        case LinearConfig():
            return peak + (floor - peak) * progress
        case WSDConfig():
            decay = min(1.0, max(0.0, (progress - (1 - config.decay_share)) / config.decay_share))
            return peak + (floor - peak) * decay
        case ConstantConfig():
            return peak
    raise AssertionError(f"no schedule for {type(config).__name__}")
