"""What each launcher says of the processes it starts, read from its environment variables.

They are obeyed where they are whole and agree; a part of them, as a shell or an image leaves it behind, is
refused by name. MASTER_ADDR and MASTER_PORT alone start nothing: many shells export them, and a process that
nobody launched does not use them.
"""

import re
import socket
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gpt_pretrain.errors import InputError

STARTED_ITS_RANKS = "GPT_PRETRAIN_STARTED_ITS_RANKS"
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
# Each says that somebody launched this process as one of several.
TELLING = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK")


@dataclass(kw_only=True, slots=True, frozen=True)
class Launcher:
    """A launcher: its variables, and the words that tell it how many processes to start."""

    name: str
    mark: str  # the variable that shows it
    rank: str = "RANK"
    local_rank: str = "LOCAL_RANK"
    world_size: str = "WORLD_SIZE"
    local_world_size: str = "LOCAL_WORLD_SIZE"
    node: str = "GROUP_RANK"  # the machine's number, where it says it
    says_address: bool = False  # of the first process, which every other must reach
    devices: str = "--nproc-per-node"
    nodes: str = "--nnodes"

    @property
    def whole(self) -> tuple[str, ...]:
        own = (self.mark, self.rank, self.local_rank, self.world_size, self.local_world_size)
        return tuple(dict.fromkeys((*own, *(ADDRESS if self.says_address else ()))))


TORCHRUN = Launcher(name="torchrun", mark="TORCHELASTIC_RUN_ID", says_address=True)
# Lightning's script launcher, on one machine.
OURSELVES = Launcher(
    name="this program",
    mark=STARTED_ITS_RANKS,
    rank="LOCAL_RANK",
    local_world_size="WORLD_SIZE",
    node="NODE_RANK",
    says_address=True,
)
OPEN_MPI = Launcher(
    name="mpirun",
    mark="OMPI_COMM_WORLD_SIZE",
    rank="OMPI_COMM_WORLD_RANK",
    local_rank="OMPI_COMM_WORLD_LOCAL_RANK",
    world_size="OMPI_COMM_WORLD_SIZE",
    local_world_size="OMPI_COMM_WORLD_LOCAL_SIZE",
    node="",
    devices="--npernode",
    nodes="--host",
)
SRUN = Launcher(
    name="srun",
    mark="SLURM_STEP_ID",  # an allocation's shell and its batch script have none
    rank="SLURM_PROCID",
    local_rank="SLURM_LOCALID",
    world_size="SLURM_STEP_NUM_TASKS",
    local_world_size="SLURM_STEP_TASKS_PER_NODE",
    node="SLURM_NODEID",
    devices="--ntasks-per-node",
    nodes="--nodes",
)
MPICH = Launcher(
    name="mpiexec",
    mark="PMI_SIZE",
    rank="PMI_RANK",
    local_rank="MPI_LOCALRANKID",
    world_size="PMI_SIZE",
    local_world_size="MPI_LOCALNRANKS",
    node="",
    devices="-ppn",
    nodes="-hosts",
)
JSRUN = Launcher(
    name="jsrun",
    mark="JSM_NAMESPACE_RANK",
    rank="JSM_NAMESPACE_RANK",
    local_rank="JSM_NAMESPACE_LOCAL_RANK",
    world_size="JSM_NAMESPACE_SIZE",
    local_world_size="JSM_NAMESPACE_LOCAL_SIZE",
    node="",
    devices="--tasks_per_rs",
    nodes="--nrs",
)
VARIABLES = Launcher(name="RANK and WORLD_SIZE", mark="RANK", says_address=True)
# Open MPI starts its own helpers with srun, so it is asked first; a PMI that srun offers comes after srun.
FOREIGN = (OPEN_MPI, SRUN, MPICH, JSRUN)


@dataclass(kw_only=True, slots=True, frozen=True)
class Process:
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1  # processes on this machine
    num_nodes: int = 1
    launcher: Launcher | None = None  # None: started by itself
    address: str = "127.0.0.1"  # where the first process can be reached
    port: int = 0  # 0: not told
    hosts: tuple[str, ...] = ()  # the machines by number, where the launcher tells them

    def name_of(self, rank: int, host: str | None = None) -> str:
        """`rank 1 of 4 on <host>`, with the host where it is known."""
        if host is None and self.num_nodes == 1:
            host = socket.gethostname()
        elif host is None and self.hosts:
            host = self.hosts[rank // self.local_world_size]
        return f"rank {rank} of {self.world_size}" + (f" on {host}" if host else "")


def read_launch(given: Mapping[str, str], launcher: Launcher) -> Process:
    """The process that `launcher` describes. Raises InputError where its variables lack or contradict."""
    given = _filled(given, launcher)
    present = [key for key in launcher.whole if key in given]
    if missing := [key for key in launcher.whole if key not in given]:
        raise InputError(
            f"{shown(given, present)}, as {launcher.name} sets it, but not {', '.join(missing)}\n"
            f"{remedy(present)}"
        )
    local_world_size = _tasks_per_node(given, launcher)
    world_size, rank = number(given, launcher.world_size), number(given, launcher.rank)
    found = Process(
        rank=rank,
        local_rank=number(given, launcher.local_rank),
        world_size=world_size,
        local_world_size=local_world_size,
        num_nodes=world_size // max(local_world_size, 1),
        launcher=launcher,
    )
    if not _agrees(given, found, launcher):
        keys = [key for key in dict.fromkeys((*launcher.whole, launcher.node, *TELLING)) if key in given]
        raise InputError(
            f"{shown(given, keys)} contradict each other\n{remedy(keys)}, "
            "with as many processes on every machine, numbered machine by machine"
        )
    return _with_address(given, found)


def number(given: Mapping[str, str], key: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", given[key]):
        raise InputError(f"{shown(given, [key])} is no number\n{remedy([key])}")
    return int(given[key])


def shown(given: Mapping[str, str], keys: list[str]) -> str:
    return " ".join(f"{key}={given[key]!r:.40}".replace("'", "") for key in keys)


def remedy(keys: list[str]) -> str:
    return (
        f"for one process, unset {' '.join(keys)}; "
        "for several, start with torchrun --nproc-per-node=<devices> train.py ..."
    )


def hosts_of(listed: str) -> tuple[str, ...]:
    """SLURM's list of machines spelled out: `a[01-03,7],b` are a01 a02 a03 a7 b; () for another grammar."""
    hosts: list[str] = []
    if re.search(r"\][^,\[]*\[", listed):  # several numbers in one name
        return ()
    for part in re.findall(r"[^,\[]+(?:\[[^\]]*\])?[^,\[]*", listed):
        match = re.fullmatch(r"([^\[]*)\[([0-9,-]+)\]([^\[]*)", part)
        if match is None:
            if "[" in part:
                return ()
            hosts.append(part)
            continue
        for numbers in match[2].split(","):
            first, _, last = numbers.partition("-")
            if (
                not first.isdigit()
                or not (last or first).isdigit()
                or int(last or first) - int(first) > 10**5
            ):
                return ()
            spelled = (f"{n:0{len(first)}d}" for n in range(int(first), int(last or first) + 1))
            hosts += [f"{match[1]}{n}{match[3]}" for n in spelled]
    return tuple(hosts)


def _filled(given: Mapping[str, str], launcher: Launcher) -> dict[str, str]:
    """An older SLURM, or one asked for it, does not name the step's own numbers."""
    filled = dict(given)
    if launcher is SRUN:
        for own, allocation in (
            ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
            ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"),
        ):
            if own not in given and allocation in given:
                filled[own] = given[allocation]
    return filled


def _tasks_per_node(given: Mapping[str, str], launcher: Launcher) -> int:
    """Processes a machine; SLURM writes `2(x3)` for three machines of two, `2,1` for unequal ones."""
    if launcher is not SRUN:
        return number(given, launcher.local_world_size)
    written = given[launcher.local_world_size]
    counts = {re.sub(r"\(x[0-9]+\)$", "", part) for part in written.split(",")}
    if len(counts) > 1 or not re.fullmatch("[0-9]{1,9}", counts.copy().pop()):
        raise InputError(
            f"{shown(given, [launcher.local_world_size])}: every machine needs as many processes: start with "
            "srun --nodes=<machines> --ntasks-per-node=<devices>, or one torchrun --nproc-per-node=<devices> "
            f"a machine, or unset {launcher.mark}"
        )
    return int(counts.pop())


def _agrees(given: Mapping[str, str], found: Process, launcher: Launcher) -> bool:
    own = {
        "RANK": found.rank,
        "LOCAL_RANK": found.local_rank,
        "WORLD_SIZE": found.world_size,
        "LOCAL_WORLD_SIZE": found.local_world_size,
    }
    if found.local_world_size == 0:
        return False
    node = found.rank // found.local_world_size
    return (
        found.local_rank < found.local_world_size
        and found.local_world_size * found.num_nodes == found.world_size
        and found.rank < found.world_size
        and found.rank % found.local_world_size == found.local_rank
        and (launcher.node not in given or number(given, launcher.node) == node)
        and all(number(given, key) == value for key, value in own.items() if key in given)
        and (not launcher.says_address or 0 < number(given, "MASTER_PORT") < 2**16)
    )


def _with_address(given: Mapping[str, str], found: Process) -> Process:
    launcher = found.launcher
    assert launcher is not None
    hosts = hosts_of(given.get("SLURM_STEP_NODELIST", "")) if launcher is SRUN else ()
    told = all(key in given for key in ADDRESS)
    if launcher.says_address or (told and found.num_nodes > 1):
        address, port = given["MASTER_ADDR"], number(given, "MASTER_PORT")
    elif found.num_nodes == 1:
        address, port = "127.0.0.1", _port(given)
    elif hosts:
        address, port = hosts[0], _port(given)
    else:
        raise InputError(
            f"{launcher.name} started {found.world_size} processes on {found.num_nodes} machines, and "
            "nothing says where they meet: export MASTER_ADDR=<the first> MASTER_PORT=29500 to all, "
            f"or unset {launcher.mark} for one process"
        )
    return replace(found, address=address, port=port, hosts=hosts)


def _port(given: Mapping[str, str]) -> int:
    """The same for every process of one launch, and most likely no other launch's on this machine."""
    if re.fullmatch("[0-9]{1,5}", given.get("MASTER_PORT", "")):
        return int(given["MASTER_PORT"])
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "LSB_JOBID")
    return 15000 + zlib.crc32("/".join(given.get(name, "") for name in names).encode()) % 15000
