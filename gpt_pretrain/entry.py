"""The border between Hydra and the program: composing, typed settings, refusals in a few lines, exit codes.

Imports neither torch nor lightning, so `--help`, completion and a typo answer at once.
"""

import dataclasses
import functools
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from gpt_pretrain.config import MEMBERS, explain, known_keys, nearest, sections, to_config
from gpt_pretrain.errors import (
    ArtifactError,
    InfrastructureError,
    InputError,
    ReaderGoneError,
    StoppedError,
    UserFacingError,
)
from gpt_pretrain.help import help_text
from gpt_pretrain.runs import SWEEP
from gpt_pretrain.terminal import outlives_reader, settle_streams, show

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
    root: type[C],
    *,
    example: str,
    rewrite: Callable[[list[str]], list[str]] = list,
    outlive_reader: bool = False,
) -> Callable[[Callable[[C, Path], float | None]], Callable[[], None]]:
    """Make `function(config, run_folder)` a program: its settings are `conf/<config_name>.yaml` typed as
    `root`.

    `rewrite` sees the command line before Hydra does. With `outlive_reader` the work goes on when nobody
    reads what it prints, as in `| head`.
    """

    def decorate(function: Callable[[C, Path], float | None]) -> Callable[[], None]:
        @functools.wraps(function)
        def program() -> None:
            settle_streams(outlive_reader=outlive_reader)
            if {"--help", "-h"} & set(sys.argv[1:]):
                show(help_text(function.__doc__ or "", example, config_name, root, config_dir()))
                return
            os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors reach us: their text is ours to write
            failures: list[UserFacingError] = []
            recorded: dict[Path, bytes] = {}
            composed = False

            def task(settings: DictConfig) -> float | None:
                nonlocal composed
                composed = True
                run = Path(HydraConfig.get().runtime.output_dir)
                try:
                    with user_facing(root, debug=bool(settings.get("debug"))):
                        return function(to_config(settings, root), run)
                except UserFacingError as error:
                    _remove_if_unused(run)
                    _report(error)
                    if error.exit_code > 128:  # a signal is for the whole sweep, not for one of its trials
                        sys.exit(error.exit_code)
                    failures.append(error)
                    return None

            register_schemas(config_name, root)
            start = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)
            debug = "debug=true" in sys.argv
            try:
                with user_facing(root, debug=debug):
                    sys.argv[1:] = rewrite(_sweep_first(sys.argv[1:])) + _follower_arguments()
                    recorded = _recorded(sys.argv)
                    try:
                        start(task)()
                    except (TypeError, ValueError, *_UNUSABLE_PATH) as error:
                        if composed or debug:
                            raise
                        raise InputError(f"the command line cannot be used: {error}") from error
            except UserFacingError as error:
                _report(error)
                failures.append(error)
            if failures:
                if isinstance(failures[0], InputError | ArtifactError):  # else every later resume fails on it
                    for file, content in recorded.items():
                        file.write_bytes(content)
                sys.exit(failures[0].exit_code)

        return program

    return decorate


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
    return ["hydra.run.dir=.", "hydra.output_subdir=null", *silent] if _rank() else []


def _recorded(arguments: list[str]) -> dict[Path, bytes]:
    """Settings of the run that a command line goes on with, before Hydra writes the new ones over them."""
    folders = [word.partition("=")[2].strip("'") for word in arguments if word.startswith("hydra.run.dir=")]
    files = [file for folder in folders[-1:] for file in Path(folder, ".hydra").glob("*.yaml")]
    return {file: file.read_bytes() for file in files}


def _rank() -> int:
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)


def _report(error: UserFacingError) -> None:
    if isinstance(error, ReaderGoneError) or (isinstance(error, StoppedError) and _rank()):
        return  # of the ranks, the first says it, and what to resume
    show(f"error: {error}", file=sys.stderr)


def _remove_if_unused(run: Path) -> None:
    """Take away the folder that Hydra made for a run that did not come about: settings and a log, nothing
    else.
    """
    if HydraConfig.get().output_subdir is None or not run.is_dir():
        return
    for handler in logging.getLogger().handlers:
        handler.flush()
    if {entry.name for entry in run.iterdir()} <= {".hydra", f"{HydraConfig.get().job.name}.log"}:
        shutil.rmtree(run / ".hydra", ignore_errors=True)
        (run / f"{HydraConfig.get().job.name}.log").unlink(missing_ok=True)
        while run != Path.cwd() and not any(run.iterdir()):
            run.rmdir()
            run = run.parent
