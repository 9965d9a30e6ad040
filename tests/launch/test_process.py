"""What launched this process: a launcher's variables are obeyed where they are whole, else refused."""

import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gpt_pretrain.config import TrainerConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.launch import process as launch
from gpt_pretrain.launch.launchers import (
    MPICH,
    OPEN_MPI,
    OURSELVES,
    SRUN,
    TORCHRUN,
    VARIABLES,
    Process,
    hosts_of,
)
from gpt_pretrain.launch.process import find_process, launching, without_launcher
from gpt_pretrain.training import machine
from tests.conftest import QUICK, ROOT

ADDRESS = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
BY_TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    **{"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1"},
    **ADDRESS,
}
BY_OURSELVES = {
    "GPT_PRETRAIN_STARTED_ITS_RANKS": "1",
    **{"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"},
    **ADDRESS,
}
SALLOC = {
    **{"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "interactive", "SLURM_NTASKS": "4"},
    **{"SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2"},
}
IN_A_STEP = {**SALLOC, "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}
BY_SRUN = {
    **{"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"},
    **{"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_NODEID": "1"},
    "SLURM_STEP_NODELIST": "node[07-08]",
}
BY_MPIRUN = {
    **{"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
    **{"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
}
BY_MPIEXEC = {"PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
BY_VARIABLES = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", **ADDRESS}


SAYS = [
    (BY_TORCHRUN, TORCHRUN, (5, 1, 8, 4, 2), "127.0.0.1"),
    (BY_OURSELVES, OURSELVES, (1, 1, 2, 2, 1), "127.0.0.1"),
    (BY_SRUN, SRUN, (3, 1, 4, 2, 2), "node07"),
    ({**BY_SRUN, "WORLD_SIZE": "4", "RANK": "3"}, SRUN, (3, 1, 4, 2, 2), "node07"),
    ({**BY_SRUN, "MASTER_ADDR": "ib7", "MASTER_PORT": "29500"}, SRUN, (3, 1, 4, 2, 2), "ib7"),
    ({**BY_SRUN, "PMI_SIZE": "4", "PMI_RANK": "3"}, SRUN, (3, 1, 4, 2, 2), "node07"),
    (BY_MPIRUN, OPEN_MPI, (1, 1, 2, 2, 1), "127.0.0.1"),
    (
        {**BY_MPIRUN, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"},
        OPEN_MPI,
        (1, 1, 2, 2, 1),
        "127.0.0.1",
    ),
    (BY_MPIEXEC, MPICH, (1, 1, 2, 2, 1), "127.0.0.1"),
    (BY_VARIABLES, VARIABLES, (3, 1, 4, 2, 2), "127.0.0.1"),
    ({**BY_TORCHRUN, **BY_SRUN}, TORCHRUN, (5, 1, 8, 4, 2), "127.0.0.1"),  # one torchrun a machine, by srun
]


@pytest.mark.parametrize(("environment", "launcher", "numbers", "address"), SAYS)
def test_a_launcher_says_which_of_its_processes_this_one_is(environment, launcher, numbers, address):
    found = find_process({**environment, "GROUP_WORLD_SIZE": "4"})
    assert found.launcher is launcher
    assert numbers == (
        *(found.rank, found.local_rank, found.world_size),
        *(found.local_world_size, found.num_nodes),
    )
    assert found.address == address
    assert 0 < found.port < 2**16


def test_the_port_is_the_same_for_every_task_of_a_step_and_another_steps_is_another():
    first = find_process({**BY_SRUN, "SLURM_PROCID": "2", "SLURM_LOCALID": "0"})
    assert first.port == find_process(BY_SRUN).port
    assert first.port != find_process({**BY_SRUN, "SLURM_STEP_ID": "1"}).port


@pytest.mark.parametrize(
    ("listed", "hosts"),
    [
        ("vm", ("vm",)),
        ("a1,b2", ("a1", "b2")),
        ("node[08-11,3],login", ("node08", "node09", "node10", "node11", "node3", "login")),
        ("r[1-2]-ib", ("r1-ib", "r2-ib")),
        ("r[1-2]c[1-2]", ()),
        ("n[1-999999999]", ()),
        ("", ()),
    ],
)
def test_slurms_list_of_machines_is_spelled_out(listed, hosts):
    assert hosts_of(listed) == hosts


@pytest.mark.parametrize(
    "environment",
    [
        {},
        SALLOC,
        {**SALLOC, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # a batch script's
        {**IN_A_STEP, "SLURM_STEP_NUM_TASKS": "1"},
        {**IN_A_STEP, "SLURM_NTASKS": "1"},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        ADDRESS,
        {"RANK": "", "LOCAL_RANK": "", "WORLD_SIZE": ""},
    ],
)
def test_one_process_of_one_task_is_a_plain_one(environment):
    assert find_process(environment) == Process()


REFUSED = [
    {"RANK": "1"},
    {"RANK": "0"},
    {"LOCAL_RANK": "1"},
    {"LOCAL_RANK": "0"},
    {"WORLD_SIZE": "2"},
    {"WORLD_SIZE": "1"},
    {"LOCAL_WORLD_SIZE": "2"},
    {"NODE_RANK": "1"},
    {"GROUP_RANK": "1"},
    {"RANK": "0", "WORLD_SIZE": "2", **ADDRESS},
    {"RANK": "one"},
    {"TORCHELASTIC_RUN_ID": "none"},
    {"GPT_PRETRAIN_STARTED_ITS_RANKS": "1"},
    {**BY_TORCHRUN, "RANK": "one"},
    {**BY_TORCHRUN, "RANK": "-1"},
    {**BY_TORCHRUN, "RANK": "٣"},
    {**BY_TORCHRUN, "WORLD_SIZE": "9" * 5000},
    {**BY_TORCHRUN, "RANK": "8"},
    {**BY_TORCHRUN, "RANK": "4"},
    {**BY_TORCHRUN, "LOCAL_RANK": "4"},
    {**BY_TORCHRUN, "WORLD_SIZE": "7"},
    {**BY_TORCHRUN, "LOCAL_WORLD_SIZE": "0"},
    {**BY_TORCHRUN, "GROUP_RANK": "0"},
    {**BY_TORCHRUN, "MASTER_PORT": "0"},
    {**BY_TORCHRUN, "MASTER_PORT": "65536"},
    {**BY_OURSELVES, "LOCAL_RANK": "2"},
    {**BY_OURSELVES, "NODE_RANK": "1"},
    {**BY_OURSELVES, "WORLD_SIZE": "0"},
    IN_A_STEP,
    {**IN_A_STEP, "SLURM_NTASKS": "1", "SLURM_PROCID": "1"},
    {**IN_A_STEP, "SLURM_STEP_NUM_TASKS": "2"},
    {**IN_A_STEP, "SLURM_NTASKS": "two"},
    {**SALLOC, "SLURM_PROCID": "1"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"},
    {**BY_MPIRUN, "OMPI_COMM_WORLD_SIZE": "4"},  # on two machines, and nothing says where they meet
    {**BY_SRUN, "SLURM_STEP_TASKS_PER_NODE": "3,1"},
    {**BY_SRUN, "SLURM_LOCALID": "0"},
    {**BY_SRUN, "WORLD_SIZE": "8"},
    {**BY_VARIABLES, "WORLD_SIZE": "5"},
    {**BY_TORCHRUN, **BY_SRUN, "GROUP_WORLD_SIZE": "1"},  # several torchruns that know nothing of each other
    {"PMI_SIZE": "2", "PMI_RANK": "1"},
    {"JSM_NAMESPACE_RANK": "1"},
]


@pytest.mark.parametrize("environment", REFUSED)
def test_a_part_of_a_launch_is_refused_in_three_lines_that_name_what_is_set(environment):
    with pytest.raises(InputError) as refusal:
        find_process(environment)
    said = str(refusal.value)
    assert len(said.splitlines()) <= 3
    assert len(said) < 700
    assert any(key in said for key in environment)
    assert "unset" in said
    assert "torchrun --n" in said or "export MASTER_ADDR" in said


@pytest.mark.parametrize("whole", [BY_TORCHRUN, BY_OURSELVES, BY_SRUN, BY_MPIRUN, BY_MPIEXEC, BY_VARIABLES])
def test_every_combination_of_a_launchers_variables_is_whole_or_nothing_or_refused(whole):
    launcher = find_process(whole).launcher
    seen: Counter[str] = Counter()
    for n in range(len(whole) + 1):
        for keys in itertools.combinations(whole, n):
            try:
                found = find_process({key: whole[key] for key in keys})
            except InputError:
                seen["refused"] += 1
                continue
            if found.launcher is None:
                seen["plain"] += 1
            elif found.launcher is launcher:
                seen["whole"] += 1
            else:  # torchrun's own mark is what tells its variables from ones that were typed
                assert (launcher, found.launcher) == (TORCHRUN, VARIABLES)
    assert seen["plain"] >= 1
    assert seen["whole"] >= 1
    assert seen["refused"] >= 2 ** len(whole) / 4


@pytest.fixture
def environment(monkeypatch):
    """Set a launcher's variables, and nothing of another one's."""

    def set_(variables: dict[str, str]) -> None:
        for key in os.environ.keys() - without_launcher(os.environ).keys():
            monkeypatch.delenv(key)
        for key, value in variables.items():
            monkeypatch.setenv(key, value)
        launch.process.cache_clear()

    yield set_
    launch.process.cache_clear()


def test_a_run_that_starts_its_ranks_marks_them_and_leaves_the_environment_as_it_was(environment):
    environment({**ADDRESS, "NODE_RANK": "", "STANDALONE_PORT": "abc"})
    before = dict(os.environ)
    with launching(2):
        assert "MASTER_ADDR" not in os.environ  # another job's: Lightning would wait for it
        assert "STANDALONE_PORT" not in os.environ
        os.environ |= {"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2", **ADDRESS}  # as Lightning does
        assert find_process(os.environ).rank == 1
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"devices": 2}, "trainer.devices=2, but torchrun started --nproc-per-node=4"),
        ({"devices": 1}, "trainer.devices=1, but torchrun started --nproc-per-node=4"),
        ({"num_nodes": 3}, "trainer.num_nodes=3, but torchrun started --nnodes=2"),
    ],
)
def test_settings_that_contradict_torchrun_are_refused_by_name(environment, settings, said):
    environment(BY_TORCHRUN)
    with pytest.raises(InputError, match=said):
        machine.find_machine(TrainerConfig(accelerator="cpu", **settings))


def test_settings_that_contradict_srun_are_refused_in_its_words(environment):
    environment(BY_SRUN)
    with pytest.raises(InputError, match=r"trainer.devices=4, but srun started --ntasks-per-node=2"):
        machine.find_machine(TrainerConfig(accelerator="cpu", devices=4))


def test_settings_that_agree_with_torchrun_or_say_nothing_are_taken(environment):
    environment(BY_TORCHRUN)
    for settings in ({}, {"devices": 4}, {"num_nodes": 2}, {"devices": 4, "num_nodes": 2}):
        found = machine.find_machine(TrainerConfig(accelerator="cpu", **settings))
        assert (found.devices, found.num_nodes) == (4, 2)


def test_several_machines_without_torchrun_are_refused_instead_of_waited_for(environment):
    environment({})
    with pytest.raises(InputError, match=r"trainer.num_nodes=2: .* torchrun --nnodes=2"):
        machine.find_machine(TrainerConfig(accelerator="cpu", num_nodes=2))


@pytest.mark.parametrize("sweep", ["-m", "--multirun", "hydra.mode=MULTIRUN"])
def test_a_sweep_under_torchrun_is_refused(environment, typed, tmp_path, sweep):
    environment({**BY_TORCHRUN, "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"})
    code, said = typed("train", sweep, *QUICK, "seed=1,2")
    assert (code, "torchrun started 8 processes, and each would start the sweep" in said) == (2, True), said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["train", "generate", "evaluate", "prepare"])
@pytest.mark.parametrize("left", [{"RANK": "1"}, {"LOCAL_RANK": "1"}, {"WORLD_SIZE": "2"}, IN_A_STEP])
def test_no_program_runs_as_a_rank_that_nobody_started(environment, typed, tmp_path, name, left):
    environment(left)
    code, said = typed(name, "hydra.run.dir=x")
    assert (code, len(said.strip().splitlines()) <= 3, "unset" in said) == (2, True, True), said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["generate", "evaluate", "prepare"])
@pytest.mark.parametrize(
    "whole",
    [
        {**BY_TORCHRUN, "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"},
        {**BY_SRUN, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"},
    ],
)
def test_a_program_of_one_process_is_not_started_as_several(environment, typed, tmp_path, name, whole):
    environment({**whole, "GROUP_WORLD_SIZE": "2"})
    code, said = typed(name)
    assert (code, "and this program is one process" in said) == (2, True), said


def test_what_every_process_finds_is_said_by_the_first(environment, typed):
    environment(BY_TORCHRUN)  # of rank 5
    assert typed("train", "model.n_layr=2") == (2, "")


def start(folder: Path, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = [*QUICK, "trainer.max_steps=2", "trainer.eval_batches=2", "hydra.run.dir=x", *arguments]
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *settings],
        cwd=folder,
        env={**without_launcher(os.environ), "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        (SALLOC, []),
        (SALLOC, ["trainer.devices=2"]),
        ({**IN_A_STEP, "SLURM_STEP_NUM_TASKS": "1"}, []),
        ({"MASTER_ADDR": "node17.invalid", "MASTER_PORT": "abc"}, ["trainer.devices=2"]),
        ({"LOCAL_RANK": "", "NODE_RANK": ""}, []),
    ],
)
def test_one_process_in_an_allocation_trains_plainly(tmp_path, variables, arguments):
    done = start(tmp_path, variables, *arguments)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x" / "summary.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"x"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "1"},
        {"LOCAL_RANK": "1"},
        {"WORLD_SIZE": "2", **ADDRESS},
        IN_A_STEP,
        {"TORCHELASTIC_RUN_ID": "none"},
    ],
)
def test_a_part_of_a_launch_is_never_silent_and_never_hangs(tmp_path, variables):
    done = start(tmp_path, variables)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert not list(tmp_path.iterdir())
