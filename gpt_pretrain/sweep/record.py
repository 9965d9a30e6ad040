"""What a sweep remembers: what is searched, and a file for each trial, written whole or not at all.

The files are all that the sweep knows: whoever is killed, the next process reads them and goes on. A folder
may come from elsewhere, so they are read as bounded, plain values.
"""

import dataclasses
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.foreign import json_text, read_json
from gpt_pretrain.runs.owner import LOCK
from gpt_pretrain.sweep.space import Point

SEARCH, TRIALS, END, LOCKS = "search.json", "trials", "end.json", ".locks"
SWEEPS = Path("multirun")  # where sweeps are that no folder was named for
LOOKED_AT = 20  # of them, the newest
WAITING, RUNNING, PAUSED, INTERRUPTED = "waiting", "running", "paused", "interrupted"
FINISHED, PRUNED, DIVERGED, REFUSED, FAILED = "finished", "pruned", "diverged", "refused", "failed"
ENDED = {FINISHED, PRUNED, DIVERGED, REFUSED, FAILED}
WITHOUT_RESULT = {DIVERGED, REFUSED, FAILED}
MOST_DEATHS = 3  # of a trial's processes on end, without getting further


@dataclass(kw_only=True, slots=True)
class Trial:
    """One point of the search and what became of it."""

    number: int
    point: Point
    words: list[str] = field(default_factory=list)  # its whole command line, the sweep's own words left out
    status: str = WAITING
    exit_code: int | None = None  # that of the same settings as a program of its own
    reason: str = ""  # why it ended
    folder: str = ""  # of the run, from the sweep's folder
    seed: int | None = None
    version: str = ""  # of the code
    host: str = ""
    pid: int | None = None
    started: str = ""
    seconds: float = 0.0
    begun_at: str = ""  # the checkpoint that its newest process began with
    deaths: int = 0  # on end, of processes that began there and ended without a word
    steps: int | None = None
    tokens_seen: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    best_val_loss: float | None = None
    objective: float | None = None  # the best validation loss; None where there is none to compare
    reached: list[float] = field(default_factory=list)  # the validation loss at each rung of halving so far
    metrics: dict[str, list[list[float]]] = field(default_factory=dict)  # name to (step, value), as measured

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def measured(self, name: str = "val/loss") -> dict[int, float]:
        """Values by step."""
        return {int(step): value for step, value in self.metrics.get(name, [])}


def to_trial(plain: Mapping[str, Any], file: Path) -> Trial:
    """A trial from the plain values of `file`. Raises ArtifactError that names what no trial holds."""
    values = {key: plain[key] for key in _HOLDS if key in plain}
    wrong = next((key for key, value in values.items() if not _HOLDS[key](value)), None)
    missing = next((key for key in ("number", "point", "status") if key not in values), None)
    if wrong or missing:
        why = f"its {wrong} is {values[wrong]!r:.40}" if wrong else f"it has no {missing}"
        raise ArtifactError(f"{file} is no record of a trial: {why}")
    return Trial(**values)


def _is_count(value: Any, most: int = 2**53) -> bool:
    return type(value) is int and 0 <= value <= most  # true is an int to Python


def _is_number(value: Any) -> bool:
    return (
        type(value) in (int, float) and abs(value) <= sys.float_info.max
    )  # which neither NaN nor 10**400 is


def _is_loss(value: Any) -> bool:
    """Far below the largest number, so that a difference of two is one."""
    return value is None or (_is_number(value) and abs(value) < 1e300)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(of, value))


def _is_row(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and _is_count(value[0]) and _is_number(value[1])


def _is_inside(value: Any) -> bool:
    """Whether a path leads nowhere but into the sweep's folder."""
    path = Path(value) if _is_text(value) and "\0" not in value else None
    return path is not None and not path.is_absolute() and ".." not in path.parts


_HOLDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("number", "deaths"), _is_count),
    **dict.fromkeys(("pid", "steps", "tokens_seen"), lambda value: value is None or _is_count(value)),
    "seed": lambda value: value is None or _is_count(value, 2**63 - 1),
    "exit_code": lambda value: value is None or _is_count(value, 255),
    "seconds": lambda value: value is not None and _is_loss(value),
    **dict.fromkeys(("train_loss", "val_loss", "best_val_loss", "objective"), _is_loss),
    "status": lambda value: _is_text(value) and value in {WAITING, RUNNING, PAUSED, INTERRUPTED, *ENDED},
    **dict.fromkeys(("reason", "version", "host", "started", "begun_at"), _is_text),
    "folder": _is_inside,
    "point": lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
    "words": lambda value: _is_list(value, _is_text),
    "reached": lambda value: _is_list(value, _is_number),
    "metrics": lambda value: (
        isinstance(value, dict) and all(_is_list(rows, _is_row) for rows in value.values())
    ),
}  # what each field of a trial may be in a file


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write `file` whole or not at all: a process that is killed leaves the old one, or the new one."""
    text = json_text(content, indent=1) + "\n"
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)


class TrialFile:
    """A trial's record where it stands. Its writers take turns: the sweep, then the trial, then the sweep."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self) -> Trial:
        return to_trial(read_json(self.file), self.file)

    def write(self, trial: Trial) -> None:
        write_json(self.file, dataclasses.asdict(trial))

    def update(self, **changes: Any) -> Trial:
        """Change some of its values; numbers that are none become null."""
        changes = {key: None if _is_no_number(value) else value for key, value in changes.items()}
        trial = dataclasses.replace(self.read(), **changes)
        self.write(trial)
        return trial


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


class SweepRecord:
    """The folder of a sweep, which several processes may work on at once.

    A trial is taken by holding its lock, which is the kernel's: it ends with its holder, however that dies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.trials: dict[int, Trial] = {}
        self.taken: dict[int, FileLock] = {}
        self._turn: FileLock | None = None

    def exists(self) -> bool:
        return is_sweep(self.folder)

    def begin(self, search: Mapping[str, Any]) -> None:
        """Make the folder one of a sweep, unless it is one already."""
        for name in (TRIALS, LOCKS):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        with self.turn():  # of two that begin at once the second finds what the first one searches
            if not self.exists():
                write_json(self.folder / SEARCH, search)

    def end(self, n_trials: int) -> None:
        """Note that of so many trials none is left to run, those that were passed over included."""
        write_json(self.folder / LOCKS / END, {"n_trials": n_trials})

    def has_ended(self, n_trials: int) -> bool:
        """Whether so many trials were run or passed over, and each has ended. Raises ArtifactError."""
        file = self.folder / LOCKS / END
        enough = read_json(file).get("n_trials") if file.is_file() else len(self.trials)
        is_over = isinstance(enough, int) and enough >= n_trials
        return is_over and all(trial.ended for trial in self.trials.values())

    def search(self) -> dict[str, Any]:
        return read_json(self.folder / SEARCH)

    def turn(self) -> FileLock:
        """Held while a process looks for what to do next, so that no two find the same."""
        if self._turn is None:
            self._turn = FileLock(self.folder / LOCKS / "turn")
        return self._turn

    def file(self, number: int) -> TrialFile:
        return TrialFile(self.folder / TRIALS / f"{number:05}.json")

    def refresh(self) -> dict[int, Trial]:
        """The trials as their files are now. Raises ArtifactError for one that cannot be read."""
        for entry in sorted((self.folder / TRIALS).glob("[0-9]*.json")):
            number = int(entry.stem) if entry.stem.isdecimal() else -1
            known = self.trials.get(number)
            if known is None or not known.ended or number in self.taken:
                trial = TrialFile(entry).read()
                if trial.number != number:
                    raise ArtifactError(f"{entry} calls itself trial {trial.number}")
                self.trials[number] = trial
        self.trials = dict(sorted(self.trials.items()))
        return self.trials

    def add(self, trial: Trial) -> Trial:
        self.file(trial.number).write(trial)
        self.trials[trial.number] = trial
        return trial

    def update(self, number: int, **changes: Any) -> Trial:
        self.trials[number] = self.file(number).update(**changes)
        return self.trials[number]

    def take(self, number: int) -> bool:
        """Take a trial for this process. False where another one has it, or its run is still written to."""
        lock = FileLock(self.folder / LOCKS / f"{number:05}")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        if self.runs_on(number):
            lock.release()
            return False
        self.taken[number] = lock
        return True

    def is_taken(self, number: int) -> bool:
        """Whether another process has the trial at this moment."""
        if number in self.taken or not self.take(number):
            return number not in self.taken
        self.release([number])
        return False

    def release(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.taken.pop(number).release()

    def runs_on(self, number: int) -> bool:
        """Whether a trial goes on although the sweep that launched it is gone, as a cluster's job does."""
        trial = self.trials.get(number)
        file = self.folder / trial.folder / LOCK if trial is not None and trial.folder else None
        if file is None or not file.is_file():
            return False
        try:
            with FileLock(file, timeout=0):
                return False
        except Timeout:
            return True


def is_sweep(folder: Path) -> bool:
    return (folder / SEARCH).is_file()


def newest_sweeps() -> list[Path]:
    """Folders of sweeps below multirun/, the newest first."""
    files = sorted(SWEEPS.glob(f"*/*/{SEARCH}"), key=lambda file: str(file.parent), reverse=True)
    return [file.parent for file in files[:LOOKED_AT]]


def now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
