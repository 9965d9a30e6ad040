"""The border between Hydra and a program: a command line becomes settings, a run's folder and an exit code.

Imports neither torch nor lightning, so `--help`, completion and a typo answer at once.
"""

import functools
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import gpt_pretrain
from gpt_pretrain.cli.completion import completion
from gpt_pretrain.cli.flags import check_dashes, flags_first
from gpt_pretrain.cli.help import group_help, help_text
from gpt_pretrain.cli.refusals import user_facing
from gpt_pretrain.cli.resume import RECORDED
from gpt_pretrain.cli.schemas import as_groups, config_dir, register_schemas
from gpt_pretrain.config import to_config, to_plain
from gpt_pretrain.config.border import escaped
from gpt_pretrain.config.paths import check_name, path_keys
from gpt_pretrain.config.words import SWEEP, value_of, with_paths_quoted, words_of
from gpt_pretrain.errors import (
    DivergedError,
    InputError,
    ReaderGoneError,
    StoppedError,
    ToldError,
    UserFacingError,
)
from gpt_pretrain.launch.job import job_name, requeue
from gpt_pretrain.launch.process import is_launched, process, rank
from gpt_pretrain.launch.signals import deferred, hearing, interruptions_first
from gpt_pretrain.runs.owner import LOCK, OWNER
from gpt_pretrain.sweep.refusals import refuse_with
from gpt_pretrain.sweep.trial import is_recorded_trial, recorded
from gpt_pretrain.terminal.logs import Formatter, failure_logged, log_files, own_logging
from gpt_pretrain.terminal.streams import settle_streams
from gpt_pretrain.terminal.text import show

RUN_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
REQUEUED = 128 + getattr(signal, "SIGUSR1", 10)  # in a batch job: SLURM's word for the time being up soon
_UNUSABLE_PATH = (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError)


def command(
    config_name: str,
    root: type,
    *,
    examples: Mapping[str, str],
    rewrite: Callable[[list[str], Path], list[str]] = lambda arguments, conf: arguments,
    outlive_reader: bool = False,
    several: bool = False,
) -> Callable[[Callable[[Any, Path], float | None]], "Program"]:
    """Make `function(config, run)` a program: its settings are `conf/<config_name>.yaml`, typed as `root`.

    `examples` are command lines, each with what it does. `rewrite` sees the command line, and the folder of
    settings, before Hydra does. With `outlive_reader` the work goes on when nobody reads what it prints: in
    `| head`. With `several` it may be one of several processes.
    """
    return lambda function: Program(function, config_name, root, examples, rewrite, outlive_reader, several)


class Program:
    """A command line becomes settings, a run's folder and an exit code."""

    def __init__(
        self,
        function: Callable[[Any, Path], float | None],
        config_name: str,
        root: type,
        examples: Mapping[str, str],
        rewrite: Callable[[list[str], Path], list[str]],
        outlive_reader: bool,
        several: bool,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function, self.config_name, self.root = function, config_name, root
        self.examples, self.rewrite = examples, rewrite
        self.outlive_reader, self.several = outlive_reader, several
        self.composed = False
        self.failures: list[UserFacingError] = []  # of a run, or of each trial of a sweep
        self.folders: set[Path] = set()  # that stood before this program made any

    def __call__(self) -> None:
        # Threads that wait for work by spinning slow down whatever else runs, and that slows them: on a busy
        # machine a step took eight times as long. Read when torch is loaded, and handed on to other ranks.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        settle_streams(outlive_reader=self.outlive_reader)
        if logging.lastResort is not None:  # before Hydra sets handlers up
            logging.lastResort.setFormatter(Formatter())
        try:
            # A reader that leaves, as in `--help | head`, shows when text is flushed.
            with user_facing(self.root, debug="debug=true" in sys.argv):
                answer = self._answer(sys.argv[1:])
                if answer is not None:
                    show(answer, flush=True)
                    return
        except UserFacingError as error:
            _report(error)
            sys.exit(error.exit_code)
        os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors reach us: their text is ours to write
        self.composed, self.failures = False, []
        try:
            with user_facing(self.root, debug="debug=true" in sys.argv), hearing(), own_logging():
                process.cache_clear()  # of an earlier program in this Python process
                process()
                self._start()
        except UserFacingError as error:
            self._fail(error)
        if self.failures:
            sys.exit(max(failure.exit_code for failure in self.failures))

    def _answer(self, arguments: list[str]) -> str | None:
        """What is said to a question about the program; None where it is to run. Raises InputError."""
        if {"--help", "-h"} & set(arguments):
            groups = [word for word in arguments if not word.startswith("-") and "=" not in word]
            if groups:
                return group_help(groups[0], self.config_name, self.root)
            return help_text(self.function.__doc__ or "", self.examples, self.config_name, self.root)
        if "--version" in arguments:
            return f"gpt_pretrain {gpt_pretrain.__version__}"
        return completion(arguments, os.environ, self.config_name, self.root)

    def _start(self) -> None:
        """Hand the command line to Hydra, which calls `_task` once, or once a trial."""
        check_dashes(sys.argv[1:], self.root)
        _check_launch(sys.argv[1:], several=self.several)
        register_schemas(self.config_name, self.root)
        keys = path_keys(self.root) | set(RUN_FOLDERS)
        arguments = with_paths_quoted(as_groups(self.config_name, flags_first(sys.argv[1:])), keys)
        sys.argv[1:] = flags_first(self.rewrite(arguments, config_dir())) + _follower_arguments()
        if os.name == "nt":
            for key in RUN_FOLDERS:
                check_name(key, value_of(key, sys.argv) or "")
        _check_launch(sys.argv[1:], several=self.several)  # resume= may have made a sweep of it
        self.folders = _standing_folders(sys.argv)
        refuse_with(functools.partial(user_facing, self.root, debug=False))
        start = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=self.config_name)
        try:
            with deferred():  # till `_task` listens: nobody takes away what Hydra leaves half done
                start(self._task)()
        except (TypeError, ValueError, *_UNUSABLE_PATH) as error:
            if self.composed or "debug=true" in sys.argv:
                raise
            if isinstance(error, OSError):
                raise InputError(f"{_shown(error)}: no folder of a run can be made there") from error
            raise InputError(f"the command line cannot be used: {error}") from error

    def _task(self, settings: DictConfig) -> float | None:
        self.composed = True
        run = Path(HydraConfig.get().runtime.output_dir)
        try:
            debug = bool(settings.get("debug"))
            with recorded(run), failure_logged(), user_facing(self.root, debug=debug), hearing():
                objective = self.function(to_config(settings, self.root), run)
        except UserFacingError as error:
            _remove_empty(run, self.folders)
            self._fail(error)
            if error.exit_code > 128:  # a signal is for the whole sweep, not for one of its trials
                sys.exit(error.exit_code)
            return None
        _remove_empty(run, self.folders)  # of what only prints: a plan
        return objective

    def _fail(self, error: UserFacingError) -> None:
        if not is_recorded_trial():  # else the sweep says what comes of it
            self.failures.append(error)
        _report(error, told=not self.composed)
        if error.exit_code == REQUEUED and self.several and job_name(os.environ) and not rank():
            show(requeue(), file=sys.stderr)


@contextmanager
def accepted(run: Path, config: object) -> Iterator[list[str]]:
    """The run came about: write its settings, for people to read, and what was said so far into its log.

    Until then nothing in its folder changes, so a refusal falsifies no record. A run that a signal ends
    before it has trained a step leaves a folder as it found it, if that was empty. Gives the words of the
    command line that chose settings.
    """
    if not HydraConfig.initialized() or rank():
        yield []
        return
    found = {entry.name for entry in run.iterdir()}
    try:
        with interruptions_first():
            yield _begin(run, config)
    except KeyboardInterrupt:
        if found <= {LOCK, OWNER}:
            for handler in log_files():
                handler.withdraw()
            for entry in run.iterdir():
                if entry.name in found:
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        raise


def _begin(run: Path, config: object) -> list[str]:
    folder, composed = run / ".hydra", HydraConfig.get()
    words = [word for word in words_of(composed, "task") if not word.endswith(f"={RECORDED}")]
    folder.mkdir(exist_ok=True)
    for name, content in {
        "config.yaml": escaped(to_plain(config)),
        "hydra.yaml": {"hydra": composed},
        "overrides.yaml": words,
    }.items():
        (folder / name).write_text(OmegaConf.to_yaml(OmegaConf.create(content)), encoding="utf-8")
    for handler in log_files():
        handler.begin()
    return words


def _check_launch(arguments: list[str], *, several: bool) -> None:
    launcher = process().launcher
    if launcher is None or process().world_size == 1:
        return
    started = f"{launcher.name} started {process().world_size} processes"
    if not several:
        raise InputError(f"{started}, and this program is one process: start it with one, or without")
    if SWEEP & set(arguments) or value_of("hydra.mode", arguments) == "MULTIRUN":
        raise InputError(
            f"{started}, and each would start the sweep: "
            "leave it out and set trainer.devices, which starts every trial's own"
        )


def _shown(error: OSError) -> str:
    is_file = isinstance(error, FileExistsError | NotADirectoryError)
    return f"{error.filename} " + ("is a file or lies in one" if is_file else f"({error.strerror})")


def _follower_arguments() -> list[str]:
    """Ranks other than the first write nothing: a folder named by their own clock would be another one."""
    silent = ["hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]
    return ["hydra.run.dir=.", "hydra.output_subdir=null", *silent] if rank() else []


def _standing_folders(arguments: list[str]) -> set[Path]:
    """The folders on the way to the one named on the command line that stand already."""
    named = [Path(value_of(key, arguments) or ".") for key in RUN_FOLDERS]
    return {
        folder for path in named for folder in (path.absolute(), *path.absolute().parents) if folder.exists()
    }


def _report(error: UserFacingError, *, told: bool = False) -> None:
    """`told`: of processes that were all given the same words the first says what is wrong."""
    try:
        number = rank()
    except InputError:  # the error at hand
        number = 0
    if isinstance(error, ReaderGoneError):
        return
    if number == 0:
        show(f"error: {error}", file=sys.stderr)
    elif not (told and is_launched()) and not isinstance(error, DivergedError | StoppedError | ToldError):
        show(f"{process().name_of(number, socket.gethostname())}: error: {error}", file=sys.stderr)


def _remove_empty(run: Path, standing: set[Path]) -> None:
    """Take away the folders that Hydra made for a run that did not come about."""
    while run not in standing and run != Path.cwd() and run.is_dir() and not any(run.iterdir()):
        run.rmdir()
        run = run.parent
