"""Which of a run's processes this one is, and what started it: found out once, here, and nowhere else."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from gpt_pretrain.errors import InputError
from gpt_pretrain.launch.launchers import (
    ADDRESS,
    FOREIGN,
    OURSELVES,
    SRUN,
    STARTED_ITS_RANKS,
    TELLING,
    TORCHRUN,
    VARIABLES,
    Launcher,
    Process,
    number,
    read_launch,
    remedy,
    shown,
)

_OTHERS = (
    "STANDALONE_PORT",
    "GROUP_WORLD_SIZE",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "ROLE_NAME",
    STARTED_ITS_RANKS,
)


@cache
def process() -> Process:
    """This process. Raises InputError where the environment holds part of a launcher's variables."""
    return find_process(os.environ)


def rank() -> int:
    return process().rank


def is_launched() -> bool:
    """True where another program started this run's processes: their number is not ours to choose."""
    return process().launcher not in (None, OURSELVES)


def find_process(environment: Mapping[str, str]) -> Process:
    """The process that a launcher's variables in `environment` describe. Raises InputError."""
    given = {key: value for key, value in environment.items() if value}  # empty is as good as unset
    if TORCHRUN.mark in given:
        _check_one_torchrun_a_machine(given)
        return read_launch(given, TORCHRUN)
    if OURSELVES.mark in given:
        return read_launch(given, OURSELVES)
    for launcher in FOREIGN:
        if _is_one_of_several(given, launcher):
            return read_launch(given, launcher)
        if launcher is SRUN and launcher.mark in given:
            break  # one task of srun's, whatever its library for MPI has set
    if left := [key for key in TELLING if key in given]:
        if missing := [key for key in VARIABLES.whole if key not in given]:
            raise InputError(
                f"{shown(given, left)}: one of several processes, as it seems, but not torchrun's "
                f"({TORCHRUN.mark} is not set), and without it {', '.join(missing)} would be needed too\n"
                f"{remedy(left)}"
            )
        return read_launch(given, VARIABLES)
    return Process()


@contextmanager
def launching(world_size: int) -> Iterator[None]:
    """While the body runs, Lightning may start this process's other ranks: they know themselves then, and
    what lies about in the environment reaches none of them. Afterwards the environment is as it was.
    """
    if process().launcher:
        yield
        return
    before = dict(os.environ)
    own = without_launcher(before) | ({STARTED_ITS_RANKS: "1"} if world_size > 1 else {})
    try:
        _set_environment(own)
        yield
    finally:
        _set_environment(before)


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` for a program that is nobody's rank."""
    theirs = {*TELLING, *ADDRESS, *_OTHERS}
    return {
        key: value
        for key, value in environment.items()
        if key not in theirs and not key.startswith(("TORCHELASTIC_", "PL_GLOBAL_SEED", "PL_SEED_"))
    }


def _is_one_of_several(given: Mapping[str, str], launcher: Launcher) -> bool:
    size = launcher.world_size
    if launcher is SRUN and size not in given:
        size = "SLURM_NTASKS"
    if launcher.mark not in given:  # an allocation has tasks that nobody has started
        size = ""
    return any(key in given and number(given, key) > most for key, most in ((size, 1), (launcher.rank, 0)))


def _check_one_torchrun_a_machine(given: Mapping[str, str]) -> None:
    """Several torchruns that srun starts, each whole in itself, would train the same model several times."""
    machines, tasks = given.get("GROUP_WORLD_SIZE", ""), given.get("SLURM_STEP_NUM_TASKS", "1")
    if SRUN.mark in given and tasks != "1" and machines.isdigit() and machines != tasks:
        raise InputError(
            f"{shown(given, ['SLURM_STEP_NUM_TASKS', 'GROUP_WORLD_SIZE'])}: srun started {tasks} torchruns "
            "that know nothing of each other: leave torchrun out, or start one a machine (srun "
            "--ntasks-per-node=1 torchrun --nnodes=<machines> --nproc-per-node=<devices> --rdzv-backend=c10d "
            f"--rdzv-endpoint=<the first machine>:29500 train.py ...), or unset {SRUN.mark}"
        )


def _set_environment(wanted: Mapping[str, str]) -> None:
    for key in os.environ.keys() - wanted.keys():
        del os.environ[key]
    os.environ.update(wanted)
