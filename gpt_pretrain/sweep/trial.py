"""A trial from its own side: it writes what becomes of it into its record, in whichever process it runs.

An environment variable, which Hydra sets for a trial under every launcher, says where the record stands.
"""

import logging
import math
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from gpt_pretrain.config import TrainConfig
from gpt_pretrain.config.sweep import SweepConfig
from gpt_pretrain.config.words import word, words_of
from gpt_pretrain.errors import DivergedError, InputError, StoppedError, UserFacingError
from gpt_pretrain.launch.process import rank, without_launcher
from gpt_pretrain.launch.signals import PASSES_ON
from gpt_pretrain.runs.folders import find_checkpoints, is_run
from gpt_pretrain.sweep.record import (
    DIVERGED,
    ENDED,
    FAILED,
    FINISHED,
    INTERRUPTED,
    MOST_DEATHS,
    PAUSED,
    PRUNED,
    REFUSED,
    RUNNING,
    SweepRecord,
    Trial,
    TrialFile,
    now,
)
from gpt_pretrain.sweep.strategies import median_gives_up, rungs
from gpt_pretrain.training.columns import Words
from gpt_pretrain.training.plan import Plan

log = logging.getLogger(__name__)

RECORD = "GPT_PRETRAIN_TRIAL"  # the file of this process's trial
APART = "let hydra.sweep.subdir differ from trial to trial, as '${hydra.job.num}' does, or leave it out"
_TAKEN_OVER = {"steps", "tokens_seen", "train_loss", "val_loss", "best_val_loss"}  # from a run's summary


def is_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def own_record() -> TrialFile | None:
    """The record of the trial that this process runs; None for any other run, and for ranks but the first."""
    file = os.environ.get(RECORD)
    return TrialFile(Path(file)) if file and not rank() else None


def is_recorded_trial() -> bool:
    """Whether this process runs a trial at this moment on behalf of a sweep that reads its record."""
    return bool(os.environ.get(RECORD)) and HydraConfig.initialized() and is_sweep()


@contextmanager
def recorded(run: Path) -> Iterator[None]:
    """Write into the trial's record that the body runs, and how it ended. Nothing where this is no trial."""
    file = own_record()
    if file is None:
        yield
        return
    sweep = file.file.parent.parent
    folder = str(run.relative_to(sweep)) if run.is_relative_to(sweep) else ""
    before, begins_at = file.read(), next((path.name for path in find_checkpoints(run)), "")
    is_child = (before.host, before.pid) == (socket.gethostname(), os.getppid())  # of `run_alone`
    died_there = before.status == RUNNING and before.begun_at == begins_at
    other = _owner(run, sweep, folder, before.number)
    file.update(
        status=RUNNING,
        reason="",
        exit_code=None,
        folder="" if other else folder,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=now(),
        begun_at=begins_at,
        deaths=before.deaths if is_child else before.deaths + 1 if died_there else 0,
    )
    began = perf_counter()
    try:
        if other:
            names = f"trial {before.number} would write into the folder of trial {other.number}, {folder}"
            raise InputError(f"{names}\n{APART}")
        yield
    except BaseException as error:
        if file.read().status not in ENDED:  # else a process of its own has said it better
            status, code, reason = outcome(error)
            file.update(status=status, exit_code=code, reason=reason, objective=None)
        if not isinstance(error, UserFacingError | KeyboardInterrupt | SystemExit):
            traceback.print_exc()
        raise
    finally:
        file.update(seconds=round(before.seconds + perf_counter() - began, 3))


def _owner(run: Path, sweep: Path, folder: str, number: int) -> Trial | None:
    """The other trial that has run in the same folder, if one has."""
    others = SweepRecord(sweep).refresh().values() if is_run(run) else ()
    return next((other for other in others if other.number != number and other.folder == folder), None)


def outcome(error: BaseException) -> tuple[str, int, str]:
    """Status, exit code and reason of a trial that ended with `error`."""
    match error:
        case StoppedError() | KeyboardInterrupt():
            return INTERRUPTED, getattr(error, "exit_code", 130), str(error) or "interrupted"
        case SystemExit():
            code = error.code & 255 if isinstance(error.code, int) else 1  # as a shell sees it
            return INTERRUPTED, code, "ended before its time"
        case DivergedError():
            return DIVERGED, error.exit_code, str(error)
        case InputError():
            return REFUSED, error.exit_code, str(error)
        case UserFacingError():
            status = INTERRUPTED if error.exit_code > 128 else FAILED
            return status, error.exit_code, str(error)
    return FAILED, 1, " ".join(f"{type(error).__name__}: {error}".split())


def goes_on(config: TrainConfig, run: Path) -> None:
    """A trial that was interrupted, or that halving lets go on, resumes in its own folder."""
    file = own_record()
    if file is not None:
        file.update(seed=config.seed)
        if config.resume is None and find_checkpoints(run):
            config.resume = str(run)


def draws(config: TrainConfig) -> bool:
    """Whether this run draws pictures. A trial on request: a sweep draws its own, and they take longer than
    the steps of a short one.
    """
    return own_record() is None if config.logger.pictures is None else config.logger.pictures


def conclude_trial(summary: Mapping[str, Any]) -> None:
    """Write a run's summary into the trial's record, if this is one."""
    file = own_record()
    if file is None:
        return
    status = {"pruned": PRUNED, "paused": PAUSED}.get(summary["exit_reason"], FINISHED)
    values = {key: value for key, value in summary.items() if key in _TAKEN_OVER}
    objective = summary["best_val_loss"] if status == FINISHED else None
    file.update(status=status, exit_code=0, reason=summary["exit_reason"], objective=objective, **values)


def judge(config: SweepConfig, plan: Plan) -> Callable[[int, Mapping[str, float]], str | None] | None:
    """What hears each evaluation of this trial and may end it: the answer is the exit reason then.

    None where this is no trial.
    """
    if not os.environ.get(RECORD):
        return None
    file = own_record()
    if file is None:
        return lambda step, measured: None  # every rank waits for what the first one says
    sweep = SweepRecord(file.file.parent.parent)
    steps_of_rungs = rungs(config, plan.steps, plan.next_evaluation)

    def hear(step: int, measured: Mapping[str, float]) -> str | None:
        trial = file.read()
        for name, value in measured.items():
            kept = [row for row in trial.metrics.get(name, []) if row[0] < step]
            known = [[step, value]] * math.isfinite(value)  # a perplexity may be beyond all numbers
            trial.metrics[name] = [*kept, *known]
        reason = None
        if config.prune == "halving" and step in steps_of_rungs:
            loss = measured["val/loss"]
            trial.reached[steps_of_rungs.index(step) :] = [
                loss if math.isfinite(loss) else sys.float_info.max
            ]
            reason = "paused"
        file.write(trial)
        if config.prune == "median" and step < plan.steps:
            others = [other for other in sweep.refresh().values() if other.number != trial.number]
            first = config.prune_at[0] if config.prune_at else max(1, plan.steps // 9)
            reason = "pruned" if median_gives_up(trial.measured(), others, first) else None
        return reason

    return hear


def swept_first(words: Sequence[str]) -> Words:
    """A command line's words, first those that differ from trial to trial: tables begin with them."""
    file = own_record()
    point = {} if file is None else file.read().point
    swept = tuple(f"{key}={text}" for key, text in point.items())
    return Words(swept, tuple(word for word in words if word not in swept))


def run_alone(run: Path) -> float | None:
    """Run this trial's settings as a program of its own in the folder `run`; returns its objective.

    Lightning starts a rank by running the command line again, sweep and all, and leaves its process group
    behind for the next trial, which would train on half of its samples without a word.
    """
    deaths, code = 0, -1
    while code < 0 and deaths < MOST_DEATHS:  # by a signal that it could not answer: as when memory runs out
        saved = find_checkpoints(run)[:1]
        words = [*words_of(HydraConfig.get(), "task"), word("hydra.run.dir", str(run)), "hydra.mode=RUN"]
        words += [word("resume", str(run))] * bool(saved)
        code = _ended(own_command(HydraConfig.get(), words))
        deaths = deaths + 1 if find_checkpoints(run)[:1] == saved else 1
    if code:
        why = f"failed with exit code {code}" if code > 0 else f"was killed {deaths} times on end by a signal"
        error = UserFacingError(f"the trial in {run} {why}")
        error.exit_code = code if 0 < code < 256 else 5
        raise error
    file = own_record()
    return None if file is None else file.read().objective


def _ended(command: list[str]) -> int:
    """The exit code of `command`. It hears of a signal that comes to this process, and ends in good order."""
    program = subprocess.Popen(command, env=own_environment())
    try:
        return program.wait()
    except KeyboardInterrupt as interrupt:
        if os.name != "nt":  # there the terminal tells it
            program.send_signal(getattr(interrupt, "number", signal.SIGINT))
        return program.wait()
    finally:
        if program.poll() is None:
            program.kill()


# Hydra's own words of a sweep, and what each trial is given.
OF_SWEEPS = ("hydra.sweep.", "hydra.sweeper", "hydra/sweeper", "hydra.launcher", "hydra/launcher")
OF_TRIALS = ("hydra.run.dir=", "hydra.job.env_set")


def own_command(
    hydra: Any, words: list[str], left_out: tuple[str, ...] = (*OF_SWEEPS, *OF_TRIALS)
) -> list[str]:
    """This program with other words: by its module, since a launcher's process has an argv of its own, and
    with the folders of settings that this one was given, which Hydra's own settings name. `left_out` are
    beginnings of Hydra's own words.
    """
    folders = [entry for entry in hydra.runtime.config_sources if entry.provider == "command-line"]
    flags = [flag for entry in folders for flag in ("--config-dir", entry.path)]
    flags += ["--config-name", str(hydra.job.config_name)]
    left_out = ("hydra.mode=", *left_out)
    kept = [entry for entry in words_of(hydra, "hydra") if not entry.lstrip("+").startswith(left_out)]
    return [sys.executable, "-m", "gpt_pretrain", *flags, *kept, *words]


def own_environment() -> dict[str, str]:
    """This process's environment without a launcher's variables, for a program that finds this package, and
    hears of signals from here as well as from the terminal.
    """
    environment = without_launcher(os.environ) | {PASSES_ON: "1"}
    package = str(Path(__file__).parent.parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
    return environment
