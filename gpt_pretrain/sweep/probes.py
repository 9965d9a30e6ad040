"""Sweeps that look for one number: a learning rate by raising it in one run, a batch size by doubling it."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from gpt_pretrain.config.sweep import SweepConfig
from gpt_pretrain.sweep.record import FINISHED, SweepRecord, Trial
from gpt_pretrain.sweep.space import Point

Rows = Sequence[Mapping[str, float]]  # of metrics.csv
BATCH = "data.batch_size"
UNTIMED = 2  # first steps, in which memory is taken and kernels are chosen
WORTHWHILE = 1.05  # times the tokens a second that a larger batch has to bring
REACH = 5  # steps to either side that a smoothed loss is the mean of
CUT_AT = 3.0  # times the way down that the loss may rise again, then the rest is left out


def is_settled(config: SweepConfig, point: Point, record: SweepRecord) -> bool:
    """Whether a point needs no trial, since smaller batches have shown what there is to see: memory has
    ended, or two doublings have brought hardly anything.
    """
    if config.seeks != "batch_size":
        return False
    smaller = [trial for trial in _others(point, record) if size(trial.point) < size(point)]
    if any(trial.ended and trial.status != FINISHED for trial in smaller):
        return True
    measured = [found for trial in smaller if (found := measure(record, trial)) is not None]
    if measured and 2 * measured[-1].memory_mb > _memory_mb():  # a CPU's process would be killed for it
        return True
    speeds = [found.tokens_per_sec for found in measured]
    return len(speeds) > 2 and max(speeds[-2:]) < WORTHWHILE * max(speeds[:-2])


@dataclass(slots=True)
class Speed:
    """What a trial of a batch size has measured."""

    batch_size: int
    tokens_per_sec: float
    memory_mb: float


def measure(record: SweepRecord, trial: Trial) -> Speed | None:
    """None for a trial that has not ended well."""
    rows = [row for row in rows_of(record, trial) if "tokens_per_sec" in row][UNTIMED:]
    if trial.status != FINISHED or not rows:
        return None
    memory = max(row.get("memory_mb", 0.0) for row in rows)
    return Speed(size(trial.point), median(row["tokens_per_sec"] for row in rows), memory)


def fastest(speeds: Sequence[Speed]) -> Speed | None:
    """The smallest batch that is nearly as fast as any."""
    most = max((speed.tokens_per_sec for speed in speeds), default=0.0)
    return next((speed for speed in speeds if speed.tokens_per_sec * WORTHWHILE >= most), None)


@dataclass(slots=True)
class RangeTest:
    """The training loss at each learning rate of a run that raises it."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]

    @property
    def lowest(self) -> float | None:
        """Where the smoothed loss is lowest."""
        return self.rates[self.smoothed.index(min(self.smoothed))] if self.smoothed else None

    @property
    def suggested(self) -> float | None:
        """Where the smoothed loss falls fastest over the rate's logarithm; None where it does not fall."""
        lowest = self.smoothed.index(min(self.smoothed)) if self.smoothed else 0
        slopes = [
            (self.smoothed[at + 1] - self.smoothed[at - 1])
            / math.log(self.rates[at + 1] / self.rates[at - 1])
            for at in range(1, lowest)
        ]
        if not slopes or min(slopes) >= 0:
            return None
        return self.rates[1 + slopes.index(min(slopes))]


def range_test(rows: Rows) -> RangeTest:
    """`rows` of a run's metrics.csv, a step each. What follows once the loss has risen far is left out."""
    known = [row for row in rows if "lr" in row and math.isfinite(row.get("train/loss", math.nan))]
    losses = [row["train/loss"] for row in known]
    smoothed = [_mean_around(losses, at) for at in range(len(losses))]
    end, lowest = len(losses), math.inf
    for at, loss in enumerate(smoothed):
        lowest = min(lowest, loss)
        if loss > lowest + CUT_AT * max(0.1, smoothed[0] - lowest):
            end = at
            break
    return RangeTest([row["lr"] for row in known[:end]], losses[:end], smoothed[:end])


def _mean_around(losses: Sequence[float], at: int) -> float:
    """Of as many steps before as after, so that what changes is not seen later than it does."""
    reach = min(REACH, at, len(losses) - 1 - at)
    return fmean(losses[at - reach : at + reach + 1])


def rows_of(record: SweepRecord, trial: Trial) -> Rows:
    """Of a trial's metrics.csv."""
    from gpt_pretrain.training.metrics_csv import read_rows  # lightning takes seconds

    return read_rows(record.folder / trial.folder / "metrics.csv") if trial.folder else []


def _others(point: Point, record: SweepRecord) -> list[Trial]:
    """The trials that differ from `point` in their batch alone, the smallest first."""
    rest = without_batch(point)
    same = [trial for trial in record.trials.values() if without_batch(trial.point) == rest]
    return sorted(same, key=lambda trial: size(trial.point))


def size(point: Mapping[str, str]) -> int:
    """A point's batch; 0 where it says none."""
    text = point.get(BATCH, "0")
    return int(text) if text.isdecimal() else 0


def without_batch(point: Mapping[str, str]) -> Point:
    return {key: text for key, text in point.items() if key != BATCH}


def _memory_mb() -> float:
    """Of this machine, in 10^6 bytes, where trials run on its processors; else there is no end of it here."""
    import torch

    if hasattr(os, "sysconf") and not torch.cuda.is_available():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
    return math.inf
