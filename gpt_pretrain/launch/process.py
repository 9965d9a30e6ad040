"""Which of a run's processes this one is, and what started it: found out once, here, and nowhere else.

A launcher says it in environment variables. They are obeyed where they are whole and agree; a part of them,
as a shell or an image leaves it behind, is refused by name. MASTER_ADDR and MASTER_PORT alone start nothing:
many shells export them, and a process that nobody launched does not use them.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from gpt_pretrain.errors import InputError

TORCHRUN, OURSELVES = "torchrun", "this program"
_RUN_ID, _OURS = "TORCHELASTIC_RUN_ID", "GPT_PRETRAIN_STARTED_ITS_RANKS"
_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
_WHOLE = {
    TORCHRUN: ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", *_ADDRESS),
    OURSELVES: ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", *_ADDRESS),  # Lightning's script launcher
}
# Each says that somebody launched this process as one of several.
_TELLING = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK")
# Launchers that are not understood yet: what they call the number of processes, and what this one's number.
_FOREIGN = {
    "mpirun": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "mpiexec": ("PMI_SIZE", "PMI_RANK"),
    "jsrun": ("JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"),
}
_OTHERS = ("STANDALONE_PORT", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", _OURS)


@dataclass(kw_only=True, slots=True, frozen=True)
class Process:
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1  # processes on this machine
    num_nodes: int = 1
    launcher: str | None = None  # None: started by itself


@cache
def process() -> Process:
    """This process. Raises InputError where the environment holds part of a launcher's variables."""
    return find_process(os.environ)


def rank() -> int:
    return process().rank


def find_process(environment: Mapping[str, str]) -> Process:
    """The process that a launcher's variables in `environment` describe. Raises InputError."""
    given = {key: value for key, value in environment.items() if value}  # empty is as good as unset
    if _RUN_ID in given:
        return _launched(given, TORCHRUN)
    if _OURS in given:
        return _launched(given, OURSELVES)
    if left := [key for key in _TELLING if key in given]:
        raise InputError(
            f"{_shown(given, left)}: one of several processes, as it seems, but torchrun did not start it "
            f"({_RUN_ID} is not set)\n{_remedy(left)}"
        )
    _check_foreign(given)
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
    own = without_launcher(before) | ({_OURS: "1"} if world_size > 1 else {})
    try:
        _set_environment(own)
        yield
    finally:
        _set_environment(before)


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` for a program that is nobody's rank."""
    theirs = {*_TELLING, *_ADDRESS, *_OTHERS}
    return {
        key: value
        for key, value in environment.items()
        if key not in theirs and not key.startswith(("TORCHELASTIC_", "PL_GLOBAL_SEED", "PL_SEED_"))
    }


def _launched(given: dict[str, str], launcher: str) -> Process:
    whole = _WHOLE[launcher]
    mark = _RUN_ID if launcher == TORCHRUN else _OURS
    present = [key for key in whole if key in given]
    if missing := [key for key in whole if key not in given]:
        raise InputError(
            f"{mark} is set, as {launcher} sets it, but not {', '.join(missing)}\n{_remedy([mark, *present])}"
        )
    numbers = {key: _number(given, key) for key in whole if key != "MASTER_ADDR"}
    if launcher == TORCHRUN:
        found = Process(
            rank=numbers["RANK"],
            local_rank=numbers["LOCAL_RANK"],
            world_size=numbers["WORLD_SIZE"],
            local_world_size=numbers["LOCAL_WORLD_SIZE"],
            num_nodes=numbers["WORLD_SIZE"] // max(numbers["LOCAL_WORLD_SIZE"], 1),
            launcher=launcher,
        )
    else:  # on one machine
        found = Process(
            rank=numbers["LOCAL_RANK"],
            local_rank=numbers["LOCAL_RANK"],
            world_size=numbers["WORLD_SIZE"],
            local_world_size=numbers["WORLD_SIZE"],
            launcher=launcher,
        )
    node = "GROUP_RANK" if launcher == TORCHRUN else "NODE_RANK"
    agrees = (
        found.local_rank < found.local_world_size
        and found.local_world_size * found.num_nodes == found.world_size
        and found.rank < found.world_size
        and found.rank % found.local_world_size == found.local_rank
        and (node not in given or _number(given, node) == found.rank // found.local_world_size)
        and 0 < numbers["MASTER_PORT"] < 2**16
    )
    if not agrees:
        shown = [key for key in dict.fromkeys((*whole, node)) if key in given]
        raise InputError(
            f"{_shown(given, shown)} contradict each other\n{_remedy([mark, *shown])}, "
            "with as many processes on every machine"
        )
    return found


def _check_foreign(given: dict[str, str]) -> None:
    """One process of one task trains; several tasks would be as many runs that know nothing of each other."""
    if "SLURM_STEP_ID" in given:  # srun's; an allocation's shell and its batch script have none
        size = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in given else "SLURM_NTASKS"
        launchers = {"srun": (size, "SLURM_PROCID")}
    else:
        launchers = {"srun": ("", "SLURM_PROCID"), **_FOREIGN}
    for launcher, (size, own) in launchers.items():
        keys = [key for key in (size, own) if key in given]
        if any(key in given and _number(given, key) > most for key, most in ((size, 1), (own, 0))):
            raise InputError(
                f"{_shown(given, keys)}: one of several tasks, which {launcher} starts as separate programs\n"
                f"start one task a machine, and in it torchrun --nproc-per-node=<devices> train.py ...; "
                f"or unset {' '.join(keys)}"
            )


def _number(given: Mapping[str, str], key: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", given[key]):
        raise InputError(f"{_shown(given, [key])} is no number\n{_remedy([key])}")
    return int(given[key])


def _shown(given: Mapping[str, str], keys: list[str]) -> str:
    return " ".join(f"{key}={given[key]!r:.40}".replace("'", "") for key in keys)


def _remedy(keys: list[str]) -> str:
    return (
        f"for one process, unset {' '.join(keys)}; "
        "for several, start with torchrun --nproc-per-node=<devices> train.py ..."
    )


def _set_environment(wanted: Mapping[str, str]) -> None:
    for key in os.environ.keys() - wanted.keys():
        del os.environ[key]
    os.environ.update(wanted)
