"""The border between Hydra and the program: composing, typed settings, refusals in a few lines, exit codes.

Imports neither torch nor lightning, so `--help`, completion and a typo answer at once.
"""

import dataclasses
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpt_pretrain.cli.resume import RECORDED
from gpt_pretrain.config import MEMBERS, explain, known_keys, nearest, sections, to_config, to_plain
from gpt_pretrain.config.border import escaped
from gpt_pretrain.config.words import SWEEP, value_of
from gpt_pretrain.errors import (
    InfrastructureError,
    InputError,
    ReaderGoneError,
    StoppedError,
    UserFacingError,
)
from gpt_pretrain.help import help_text
from gpt_pretrain.launch.rank import rank
from gpt_pretrain.sweep.plugin import register_sweeper
from gpt_pretrain.terminal import LogFile, outlives_reader, settle_streams, show

log = logging.getLogger(__name__)

C = TypeVar("C")

_UNUSABLE_PATH = (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError)


def config_dir() -> Path:
    """`conf/` inside an installed package, else beside it in a clone."""
    package = Path(__file__).parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def register_schemas(config_name: str, root: type) -> None:
    """Give the YAML files the classes of `config` to build on."""
    store = ConfigStore.instance()
    store.store(config_name, root, group="schema", package="_global_")
    for section, base in sections(root):
        for name, member in MEMBERS.get(base, {}).items():
            store.store(name, member, group=f"schema/{section}")
    register_sweeper()


def compose(config_name: str, root: type[C], overrides: list[str]) -> C:
    """Settings as the program would see them on a command line of `overrides`: for notebooks and tests.

    Raises InputError where the program would refuse them.
    """
    register_schemas(config_name, root)
    with (
        user_facing(root, debug=False),
        hydra.initialize_config_dir(str(config_dir()), version_base="1.3"),
    ):
        return to_config(hydra.compose(config_name, overrides), root)


def command(
    config_name: str,
    root: type,
    *,
    example: str,
    rewrite: Callable[[list[str], Path], list[str]] = lambda arguments, conf: arguments,
    outlive_reader: bool = False,
) -> Callable[[Callable[[Any, Path], float | None]], "Program"]:
    """Make `function(config, run_folder)` a program: its settings are `conf/<config_name>.yaml` typed as
    `root`.

    `rewrite` sees the command line, and the folder of settings, before Hydra does. With `outlive_reader` the
    work goes on when nobody reads what it prints, as in `| head`.
    """
    return lambda function: Program(function, config_name, root, example, rewrite, outlive_reader)


class Program:
    """A command line becomes settings, a run's folder and an exit code."""

    def __init__(
        self,
        function: Callable[[Any, Path], float | None],
        config_name: str,
        root: type,
        example: str,
        rewrite: Callable[[list[str], Path], list[str]],
        outlive_reader: bool,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function, self.config_name, self.root = function, config_name, root
        self.example, self.rewrite, self.outlive_reader = example, rewrite, outlive_reader
        self.composed = False
        self.failures: list[UserFacingError] = []  # of a run, or of each trial of a sweep
        self.folders: set[Path] = set()  # that stood before this program made any

    def __call__(self) -> None:
        settle_streams(outlive_reader=self.outlive_reader)
        if {"--help", "-h"} & set(sys.argv[1:]):
            help_ = (self.function.__doc__ or "", self.example, self.config_name, self.root, config_dir())
            show(help_text(*help_))
            return
        os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors reach us: their text is ours to write
        self.composed, self.failures = False, []
        try:
            with user_facing(self.root, debug="debug=true" in sys.argv):
                self._start()
        except UserFacingError as error:
            self._fail(error)
        if self.failures:
            sys.exit(self.failures[0].exit_code)

    def _start(self) -> None:
        """Hand the command line to Hydra, which calls `_task` once, or once a trial."""
        register_schemas(self.config_name, self.root)
        sys.argv[1:] = self.rewrite(_sweep_first(sys.argv[1:]), config_dir()) + _follower_arguments()
        self.folders = _standing_folders(sys.argv)
        start = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=self.config_name)
        try:
            start(self._task)()
        except (TypeError, ValueError, *_UNUSABLE_PATH) as error:
            if self.composed or "debug=true" in sys.argv:
                raise
            raise InputError(f"the command line cannot be used: {error}") from error

    def _task(self, settings: DictConfig) -> float | None:
        self.composed = True
        run = Path(HydraConfig.get().runtime.output_dir)
        try:
            with user_facing(self.root, debug=bool(settings.get("debug"))):
                return self.function(to_config(settings, self.root), run)
        except UserFacingError as error:
            _remove_empty(run, self.folders)
            self._fail(error)
            if error.exit_code > 128:  # a signal is for the whole sweep, not for one of its trials
                sys.exit(error.exit_code)
            return None

    def _fail(self, error: UserFacingError) -> None:
        self.failures.append(error)
        _report(error)


def accept(run: Path, config: object) -> None:
    """The run came about: write its settings for people to read, where Hydra writes them, and what was said
    so far into its log.

    Until then nothing in its folder changes, so a refusal falsifies no record.
    """
    if not HydraConfig.initialized() or rank():
        return
    folder, composed = run / ".hydra", HydraConfig.get()
    folder.mkdir(exist_ok=True)
    for name, content in {
        "config.yaml": escaped(to_plain(config)),
        "hydra.yaml": {"hydra": composed},
        "overrides.yaml": [word for word in composed.overrides.task if not word.endswith(f"={RECORDED}")],
    }.items():
        (folder / name).write_text(OmegaConf.to_yaml(OmegaConf.create(content)), encoding="utf-8")
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            handler.begin()


@contextmanager
def user_facing(root: type, *, debug: bool) -> Iterator[None]:
    """Turn what users cause and can mend into a UserFacingError; with `debug`, leave tracebacks alone."""
    try:
        yield
    except (
        UserFacingError,
        HydraException,
        OmegaConfBaseException,
        OSError,
        MemoryError,
        KeyboardInterrupt,
    ) as error:
        if debug:
            raise
        if isinstance(error, UserFacingError):
            raise
        if isinstance(error, HydraException | OmegaConfBaseException):
            raise InputError(_explain_composition(error, root)) from error
        if isinstance(error, BrokenPipeError) and not outlives_reader():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python's exit fails on it
            raise ReaderGoneError from error
        if isinstance(error, KeyboardInterrupt):
            interrupted = UserFacingError("interrupted")
            interrupted.exit_code = 130
            raise interrupted from error
        if isinstance(error, MemoryError):
            raise _out_of_memory() from error
        raise InfrastructureError(f"the machine failed: {error or type(error).__name__}") from error
    except RuntimeError as error:
        if debug:
            raise
        if re.search("out of memory|can't allocate memory|ALLOC_FAILED", str(error)):  # NCCL's too
            raise _out_of_memory() from error
        if not re.search("gloo|nccl|Connection (closed|reset) by peer", str(error), re.IGNORECASE):
            raise
        raise InfrastructureError(
            "another process of this run was lost: resume=<the run> goes on from its newest checkpoint"
        ) from error


def _out_of_memory() -> InfrastructureError:
    return InfrastructureError(
        "out of memory: choose a smaller model, or do less at once. Training: a smaller data.batch_size\n"
        "(trainer.global_batch_tokens keeps the batch). Generating: fewer prompts, num_samples or beams"
    )


def _explain_composition(error: Exception, root: type) -> str:
    """What Hydra refused, in one line with the nearest right name."""
    if isinstance(error, OmegaConfBaseException):
        return explain(error, root)
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = list(error.options or [])
        there_are = ", ".join(options)
        if not group:
            return f"there is no {option}.yaml among the settings: leave out --config-name and --config-path"
        return f"{group}={option}: no such option{nearest(option, options)} (there are {there_are})"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} cannot be read as a setting: write key=value, and quote what is special "
            "in it, as in \"data.path='a, b.txt'\""
        )
    if match := re.search(r"Ambiguous value for argument '(.+)'", text):
        return f"{match[1]} has several values: add -m for a sweep, or brackets for a list: key=[1,2]"
    if match := re.search(r"Could not override '([^']+)'", text):
        return _no_such_key(match[1], root)
    if isinstance(error, ConfigCompositionException) and isinstance(error.__cause__, OmegaConfBaseException):
        return explain(error.__cause__, root)
    return " ".join(line.strip() for line in text.splitlines()[:2])


def _no_such_key(key: str, root: type) -> str:
    section, _, name = key.partition(".")
    owners = [
        f"{section}={member}"
        for base in dict(sections(root)).values()
        for member, cls in MEMBERS.get(base, {}).items()
        if base is dict(sections(root)).get(section)
        and name in {entry.name for entry in dataclasses.fields(cls)}
    ]
    if owners:
        return f"{key} belongs to {' and '.join(owners)}: choose it, or leave {key} out"
    if key in dict(sections(root)):
        return f"{key} takes the name of an option: {key}={'|'.join(_options(key))}"
    groups = sorted(path.name for path in config_dir().iterdir() if path.is_dir())
    return f"{key}: no such setting or group{nearest(key, known_keys(root) + groups)}"


def _options(group: str) -> list[str]:
    return sorted(file.stem for file in (config_dir() / group).glob("*.yaml"))


def _sweep_first(arguments: list[str]) -> list[str]:
    """-m before the settings: Hydra's parser refuses those on either side of it."""
    flags = [word for word in arguments if word in SWEEP]
    return flags[:1] + [word for word in arguments if word not in flags]


def _follower_arguments() -> list[str]:
    """Ranks other than the first write nothing: their run folder, named by their own clock, would be another
    one.
    """
    silent = ["hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]
    return ["hydra.run.dir=.", "hydra.output_subdir=null", *silent] if rank() else []


def _standing_folders(arguments: list[str]) -> set[Path]:
    """The folders on the way to the one named on the command line that stand already."""
    named = [Path(value_of(key, arguments) or ".") for key in ("hydra.run.dir", "hydra.sweep.dir")]
    return {
        folder for path in named for folder in (path.absolute(), *path.absolute().parents) if folder.exists()
    }


def _report(error: UserFacingError) -> None:
    if isinstance(error, ReaderGoneError) or (isinstance(error, StoppedError) and rank()):
        return  # of the ranks, the first says it, and what to resume
    show(f"error: {error}", file=sys.stderr)


def _remove_empty(run: Path, standing: set[Path]) -> None:
    """Take away the folders that Hydra made for a run that did not come about."""
    while run not in standing and run != Path.cwd() and run.is_dir() and not any(run.iterdir()):
        run.rmdir()
        run = run.parent
