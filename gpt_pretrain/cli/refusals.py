"""What users cause and can mend, in a few lines: which setting, what holds, what to do."""

import dataclasses
import errno
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf.errors import OmegaConfBaseException

from gpt_pretrain.cli.schemas import options
from gpt_pretrain.config import (
    MEMBERS,
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    InspectConfig,
    PlaygroundConfig,
    PlotConfig,
    PrepareConfig,
    SlurmConfig,
    TrainConfig,
    known_keys,
    nearest,
    say_what_is_wrong,
    sections,
)
from gpt_pretrain.config.habits import instead
from gpt_pretrain.config.paths import path_keys
from gpt_pretrain.errors import InfrastructureError, InputError, ReaderGoneError, UserFacingError
from gpt_pretrain.launch.signals import Interrupted, interruptions_first, received
from gpt_pretrain.launch.watch import is_failed_exchange
from gpt_pretrain.terminal.streams import outlives_reader

# Whose a setting may be that another program was given.
PROGRAMS = {
    "train.py": TrainConfig,
    "generate.py": GenerateConfig,
    "gpt_pretrain.evaluate": EvaluateConfig,
    "gpt_pretrain.export": ExportConfig,
    "gpt_pretrain.prepare": PrepareConfig,
    "gpt_pretrain.playground": PlaygroundConfig,
    "gpt_pretrain.inspect_data": InspectConfig,
    "gpt_pretrain.plot": PlotConfig,
    "gpt_pretrain.slurm": SlurmConfig,
}
# Launchers that are packages of their own.
LAUNCHERS = {
    "submitit_slurm": "hydra-submitit-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "joblib": "hydra-joblib-launcher",
    "ray": "hydra-ray-launcher",
}

_NO_PATH = {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}  # what only a path that was typed can cause


@contextmanager
def user_facing(root: type, *, debug: bool) -> Iterator[None]:
    """Turn what users cause and can mend into a UserFacingError; with `debug`, leave tracebacks alone."""
    try:
        with interruptions_first():
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
        if _is_lost_loader(error):
            raise _lost_loader() from error
        if isinstance(error, BrokenPipeError) and not outlives_reader():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python's exit fails on it
            raise ReaderGoneError from error
        if isinstance(error, KeyboardInterrupt):
            raise _interrupted(error) from error
        if isinstance(error, MemoryError):
            raise _out_of_memory() from error
        if isinstance(error, OSError) and error.errno in _NO_PATH:
            raise InputError(f"{_shortened(error)}: give another path") from error
        raise InfrastructureError(f"the machine failed: {error or type(error).__name__}") from error
    except (RuntimeError, EOFError) as error:
        if debug:
            raise
        if re.search("out of memory|can't allocate memory|ALLOC_FAILED", str(error)):  # NCCL's too
            raise _out_of_memory() from error
        if _is_lost_loader(error):
            raise _lost_loader() from error
        if not is_failed_exchange(error):
            raise
        raise InfrastructureError(
            "another process of this run was lost: resume=<the run> goes on from its newest checkpoint"
        ) from error


def _interrupted(error: KeyboardInterrupt) -> UserFacingError:
    interrupted = UserFacingError(str(error) or "interrupted")
    interrupted.exit_code = 128 + getattr(error, "number", signal.SIGINT)
    return interrupted


def _is_lost_loader(error: BaseException) -> bool:
    """Whether a loader's process has died: between batches, or amid the handing over of one."""
    if isinstance(error, ConnectionError | EOFError):
        files = {frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)}
        return any(file.endswith("dataloader.py") for file in files)
    return bool(re.search("DataLoader worker .* (exited|is killed)", str(error)))


def _lost_loader() -> UserFacingError:
    if (number := received()) is not None:  # which has ended it, too
        return _interrupted(Interrupted(number))
    return InfrastructureError(
        "a process that loads data died, for want of memory perhaps: smaller data.num_workers, and "
        "resume=<the run> goes on from its newest checkpoint"
    )


def _shortened(error: OSError) -> str:
    return f"{error.strerror}: {str(error.filename)[:60]}..." if error.filename else str(error)


def _out_of_memory() -> InfrastructureError:
    return InfrastructureError(
        "out of memory: choose a smaller model, or do less at once. Training: a smaller data.batch_size\n"
        "(trainer.global_batch_tokens keeps the batch). Generating: fewer prompts, num_samples or beams"
    )


def _explain_composition(error: Exception, root: type) -> str:
    """What Hydra refused, in one line with the nearest right name."""
    if isinstance(error, OmegaConfBaseException):
        return say_what_is_wrong(error, root)
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = list(error.options or [])
        there_are = ", ".join(options)
        if group == "hydra/launcher" and option in LAUNCHERS:
            return f"{group}={option} needs {LAUNCHERS[option]}: pip install {LAUNCHERS[option]}"
        if not group:
            return f"there is no {option}.yaml among the settings: leave out --config-name and --config-path"
        remedy = _INSTALLED_BY.get(group, "")
        group = "debug" if group == "debugging" else group  # as it is typed
        return f"{group}={option}: no such option{nearest(option, options)} (there are {there_are}){remedy}"
    if isinstance(error, OverrideParseException):
        if re.match(r"hydra\.\w+\.dir=~", error.override):
            return (
                f"{error.override}: Hydra makes a folder named ~ of it: give the whole path, as in $HOME/runs"
            )
        return (
            f"{error.override!r} cannot be read as a setting: write key=value, and quote what is special "
            "in it, as in \"data.path='a, b.txt'\""
        )
    if match := re.search(r"Ambiguous value for argument '(.+)'", text):
        several = "brackets for a list: key=[1,2]"
        if match[1].partition("=")[0] in path_keys(root):
            several = "name the folder, or a glob in quotes: key='*.txt'"
        return f"{match[1]} has several values: add -m for a sweep, or {several}"
    if match := re.search(r"Could not override '([^']+)'", text):
        return _no_such_key(match[1], root)
    if isinstance(error, ConfigCompositionException) and isinstance(error.__cause__, OmegaConfBaseException):
        return say_what_is_wrong(error.__cause__, root)
    return " ".join(line.strip() for line in text.splitlines()[:2])


_INSTALLED_BY = {
    "hydra/launcher": "\njoblib and submitit come with pip install '.[sweep]', ray with hydra-ray-launcher",
    "hydra/sweeper": "\nsweep=tpe and sweep=cmaes draw with Optuna: pip install '.[sweep]'",
}


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
        return f"{key} takes the name of an option: {key}={'|'.join(options(key, root))}"
    own = known_keys(root)
    if hint := instead(key, own):
        return f"{key}: no such setting or group{hint}"
    others = [other for other, its_root in PROGRAMS.items() if key in known_keys(its_root)]
    if others:
        return f"{key}: this program has no such setting or group: it is one of {', '.join(others)}"
    groups = ["hydra", "experiment"] if root is TrainConfig else ["hydra"]
    return f"{key}: no such setting or group{nearest(key, own + groups)}"
