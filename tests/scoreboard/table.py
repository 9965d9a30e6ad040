"""The table of a scoreboard: what was tried, how often it held, and that the trial can fail."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Case:
    name: str
    holds: bool
    why: str = ""  # where it does not


@dataclass(slots=True)
class Profile:
    """How much is tried: `few` in the quick profile, `many` in the full one."""

    full: bool
    folder: Path
    seed: int

    def of(self, few: int, many: int) -> int:
        return many if self.full else few

    def random(self, trial: str) -> random.Random:
        return random.Random(f"{self.seed}/{trial}")


@dataclass(slots=True)
class Trial:
    number: int
    claim: str
    cases: Callable[[Profile], Iterator[Case]]
    control: Callable[[Profile], Iterator[Case]]  # the same with the protection taken away: none may hold
    held: list[Case] = field(default_factory=list)
    controls: list[Case] = field(default_factory=list)
    seconds: float = 0.0

    def run(self, profile: Profile) -> bool:
        """Whether every case held, and every control failed."""
        began = time.monotonic()
        self.held = _told(self, "", self.cases(profile))
        self.controls = _told(self, "control: ", self.control(profile))
        self.seconds = time.monotonic() - began
        return all(case.holds for case in self.held) and not any(case.holds for case in self.controls)

    @property
    def row(self) -> str:
        failed = sum(not case.holds for case in self.controls)
        return (
            f"| {self.number} | {self.claim} | {sum(case.holds for case in self.held)}/{len(self.held)} "
            f"| {failed}/{len(self.controls)} | {self.seconds:.0f} |"
        )


HEAD = "| | what is tried | held | without the protection, failed | seconds |\n|---|---|---|---|---|"


def _told(trial: Trial, kind: str, cases: Iterator[Case]) -> list[Case]:
    told = []
    for case in cases:
        told.append(case)
        if case.holds == bool(kind):
            print(f"  {trial.number}: {kind}{case.name}: {case.why or 'held'}", flush=True)
    return told
