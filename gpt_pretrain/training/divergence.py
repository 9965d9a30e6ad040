"""What to do about a step whose loss or gradient is no number, or whose gradient leaps: decided before the
optimizer moves, so that the weights have never seen it.
"""

import logging
import math
from collections import deque
from statistics import median
from typing import Any

from gpt_pretrain.errors import DivergedError

log = logging.getLogger(__name__)

REMEMBERED, FEWEST = 50, 20  # gradient norms that a leap is measured against


class RolledBackError(Exception):
    """The run is to go on from an earlier checkpoint, past the batches up to `step`'s."""

    def __init__(self, step: int, finding: str) -> None:
        super().__init__(finding)
        self.step = step


class Divergence:
    """`policy`: stop the run, skip the step's batch, or roll back; at most `budget` times in a run."""

    def __init__(self, policy: str, budget: int, spike: float | None) -> None:
        self.policy, self.budget, self.spike = policy, budget, spike
        self.norms: deque[float] = deque(maxlen=REMEMBERED)
        self.skipped: list[int] = []  # steps whose batch was not trained on
        self.rolled_back: list[list[int]] = []  # [to this step, and past the batches up to that one]

    @property
    def n_passed_over(self) -> int:
        """Steps whose batches roll-backs have left out so far."""
        return sum(end - begin for begin, end in self.rolled_back)

    def finding(self, loss_is_finite: bool, norm: float | None) -> str | None:
        """What is wrong with a step, in words; None where nothing is. A norm of None is not looked at."""
        if not loss_is_finite:
            return "the training loss is no finite number"
        if norm is None:
            return None
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}"
        if self.spike is not None and len(self.norms) >= FEWEST and norm > self.spike * median(self.norms):
            return f"the gradient's norm is {norm:.4g}, more than {self.spike:g} times its median"
        self.norms.append(norm)
        return None

    def answer(self, step: int, finding: str, error: DivergedError, samples: str) -> None:
        """Return where the step is to be skipped. Raises `error`, or RolledBackError."""
        if self.policy == "stop":
            raise error
        if len(self.skipped) + len(self.rolled_back) >= self.budget:
            raise DivergedError(f"{error}\ntrainer.divergence_budget={self.budget} is used up")
        if self.policy == "rollback":
            raise RolledBackError(step, finding)
        self.skipped.append(step)
        log.warning("step %d: %s; skipped (%s)", step, finding, samples)

    def roll_back(self, to: int, past: int) -> None:
        """The run goes on at step `to`, with the batches after those of step `past`."""
        self.rolled_back.append([to, past])
        self.norms.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"norms": list(self.norms), "skipped": self.skipped, "rolled_back": self.rolled_back}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A checkpoint does not know of the roll-backs to it."""
        self.norms = deque(state_dict["norms"], maxlen=REMEMBERED)
        self.skipped = list(state_dict["skipped"])
        self.rolled_back = max(self.rolled_back, list(state_dict["rolled_back"]), key=len)
