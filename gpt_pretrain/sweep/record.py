"""What a sweep remembers: what is searched, and a file for each trial, written whole or not at all.

The files are all that the sweep knows: whoever is killed, the next process reads them and goes on. A folder
may come from elsewhere, so they are read as bounded, plain values.
"""

import dataclasses
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.foreign import read_json
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
_NUMBERS = (int, float, type(None))


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
    """A trial from the plain values of `file`. Raises ArtifactError for what no trial holds."""
    known = {entry.name: entry for entry in dataclasses.fields(Trial)}
    values = {key: value for key, value in plain.items() if key in known}
    texts = [
        values.get(key, "")
        for key in ("status", "reason", "folder", "version", "host", "started", "begun_at")
    ]
    numbers: tuple[str, ...] = ("exit_code", "seed", "pid", "seconds", "steps", "tokens_seen", "until")
    numbers += ("train_loss", "val_loss", "best_val_loss", "objective")
    point, words, metrics = values.get("point"), values.get("words", []), values.get("metrics", {})
    reached = values.get("reached", [])
    sound = (
        all(isinstance(values.get(key, 0), int) for key in ("number", "deaths"))
        and "number" in values
        and all(isinstance(text, str) for text in texts)
        and values.get("status") in {WAITING, RUNNING, PAUSED, INTERRUPTED, *ENDED}
        and all(isinstance(values.get(key), _NUMBERS) for key in numbers)
        and isinstance(point, dict)
        and all(isinstance(text, str) for entry in point.items() for text in entry)
        and not Path(values.get("folder", "")).is_absolute()
        and ".." not in Path(values.get("folder", "")).parts
        and isinstance(words, list)
        and all(isinstance(word, str) for word in words)
        and isinstance(reached, list)
        and all(isinstance(loss, int | float) for loss in reached)
        and isinstance(metrics, dict)
        and all(isinstance(rows, list) and all(map(_is_row, rows)) for rows in metrics.values())
    )
    if not sound:
        raise ArtifactError(f"{file} is no record of a trial")
    return Trial(**values)


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2 and all(isinstance(value, int | float) for value in row)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write `file` whole or not at all: a process that is killed leaves the old one, or the new one."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
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
