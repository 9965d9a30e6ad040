"""A sweep: which points it tries, how many at a time, and when it gives a trial up."""

from dataclasses import dataclass, field
from typing import Any

from gpt_pretrain.config.fields import number, one_of
from gpt_pretrain.errors import InputError


@dataclass(kw_only=True, slots=True)
class SweepConfig:
    """What `-m` does with the values that it is given. A single run takes nothing of it."""

    strategy: str = one_of("grid", "random", "tpe", "cmaes")  # how points are chosen
    trials: int | None = number(None, "every point, or 20 where there is no end of them", at_least=1)
    seed: int = number(0, at_least=0)  # of the points that are drawn
    jobs: int = number(1, at_least=1)  # trials at a time on this machine
    prune: str = one_of("none", "median", "halving")  # which trials are given up
    prune_at: list[int] = field(default_factory=list)  # optimizer steps; empty: from a ninth of a run on
    reduction: int = number(3, at_least=2)  # halving: one of so many goes on
    impossible: str = one_of("record", "skip", "refuse")  # points that cannot work, found before the start
    seeks: str = one_of("loss", "lr_range", "batch_size")  # the lowest loss, or one number by its presets
    most_failures: int | None = number(None, "any number", at_least=1)  # so many that fail or diverge end it
    retry: bool = False  # run failed, diverged and refused trials again
    params: Any = None  # a preset's words, {setting: values}; those of the command line go above them

    def check(self) -> None:
        if any(step < 1 for step in self.prune_at) or sorted(set(self.prune_at)) != self.prune_at:
            raise InputError(
                f"sweep.prune_at={self.prune_at}: give rising numbers of optimizer steps, as in [50,150]"
            )
        if self.params is not None and not isinstance(self.params, dict):
            raise InputError(
                "sweep.params is no mapping of settings to values, as {optimizer.lr: '1e-4,1e-3'} is"
            )
