"""A real SLURM on this machine: every way in which a job starts training, what a signal does to it."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt_pretrain.launch.process import without_launcher
from tests.conftest import QUICK, ROOT
from tests.launch.slurm_node import slurm, why_not

pytestmark = pytest.mark.slow

TRAIN = [sys.executable, str(ROOT / "train.py")]
SETTINGS = [
    *(*QUICK, "trainer.precision=32-true", "data.batch_size=2", "trainer.eval_batches=2"),
    *("trainer.log_every=1", "trainer.max_steps=4"),
]


@pytest.fixture(scope="module")
def cluster():
    if reason := why_not():
        pytest.skip(reason)
    with slurm() as environment:
        yield {**without_launcher(environment), "PYTHONPATH": str(ROOT)}


@pytest.fixture
def ask(cluster, tmp_path):
    """Run a command that talks to SLURM in an empty folder."""

    def run(*command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command], cwd=tmp_path, env=cluster, capture_output=True, text=True, timeout=timeout
        )

    return run


@pytest.fixture
def submit(ask, tmp_path):
    """Submit a batch script that says `lines`; returns the job's number."""

    def run(*lines: str, options: str = "") -> str:
        head = ["#!/bin/bash", "#SBATCH --output=log.txt --open-mode=append --requeue " + options]
        (tmp_path / "job.sh").write_text("\n".join([*head, *lines]) + "\n")
        done = ask("sbatch", "--parsable", "job.sh")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def ended(ask, tmp_path):
    """Wait for a job's end; what it wrote."""

    def wait(job: str, seconds: float = 120) -> str:
        until = time.monotonic() + seconds
        while ask("squeue", "-h", "-j", job).stdout.strip():
            assert time.monotonic() < until, (tmp_path / "log.txt").read_text()
            time.sleep(0.3)
        return (tmp_path / "log.txt").read_text()

    return wait


def words(*more: str) -> str:
    return " ".join([*TRAIN, *SETTINGS, *more])


def summaries(folder: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted(folder.rglob("summary.json"))]


def losses(folder: Path) -> dict[int, float]:
    (file,) = folder.rglob("metrics.csv")
    with file.open() as stream:
        return {
            int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(stream) if row["train/loss"]
        }


def test_two_tasks_of_srun_train_one_model_in_one_folder_with_one_voice(ask, tmp_path):
    done = ask("srun", "-n2", *TRAIN, *SETTINGS)
    assert done.returncode == 0, done.stderr
    (summary,) = summaries(tmp_path)
    assert summary["tokens_seen"] == 4 * 2 * 2 * 64  # steps, tasks, sequences, tokens
    assert done.stdout.count("run     ") == 1
    assert len(list(tmp_path.glob("outputs/*/*"))) == 1


def test_one_task_of_srun_starts_the_devices_that_the_settings_ask_for(ask, tmp_path):
    done = ask("srun", "-n1", *TRAIN, *SETTINGS, "trainer.devices=2")
    assert done.returncode == 0, done.stderr
    (summary,) = summaries(tmp_path)
    assert summary["tokens_seen"] == 4 * 2 * 2 * 64


def test_settings_that_contradict_srun_are_refused_once(ask, tmp_path):
    done = ask("srun", "-n2", *TRAIN, *SETTINGS, "trainer.devices=4")
    assert done.stderr.count("trainer.devices=4, but srun started --ntasks-per-node=2") == 1, done.stderr
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert not list(tmp_path.rglob("summary.json"))


def test_a_sweep_in_several_tasks_is_refused_once(ask, tmp_path):
    done = ask("srun", "-n2", *TRAIN, *SETTINGS, "-m", "seed=1,2")
    assert done.stderr.count("srun started 2 processes, and each would start the sweep") == 1, done.stderr
    assert done.returncode == 2
    assert not list(tmp_path.iterdir())


def test_two_tasks_of_srun_go_on_with_their_run(ask, tmp_path):
    assert ask("srun", "-n2", *TRAIN, *SETTINGS, "hydra.run.dir=run").returncode == 0
    done = ask("srun", "-n2", *TRAIN, "resume=run", "trainer.max_steps=6")
    assert done.returncode == 0, done.stderr
    (summary,) = summaries(tmp_path)
    assert (summary["steps"], summary["tokens_seen"]) == (6, 6 * 2 * 2 * 64)


def test_a_sweep_in_a_batch_script_gives_each_trial_its_devices(submit, ended, tmp_path):
    said = ended(submit(words("-m", "seed=1,2", "trainer.devices=2", "hydra.sweep.dir=sweep"), options="-n2"))
    assert [summary["tokens_seen"] for summary in summaries(tmp_path)] == [4 * 2 * 2 * 64] * 2, said


def test_a_sweep_through_submitit_is_a_job_a_trial_and_the_worst_one_decides(ask, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install '.[sweep]'")
    rates = ["optimizer.lr=1e-3,1e308,1e-2", "trainer.grad_clip=null"]
    done = ask(*TRAIN, *SETTINGS, "-m", "hydra/launcher=slurm", *rates, "hydra.sweep.dir=sweep", timeout=200)
    assert done.returncode == 4, done.stderr
    trials = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("sweep/trials/*.json"))]
    assert [trial["status"] for trial in trials] == ["finished", "diverged", "finished"]
    assert all(trial["objective"] for trial in (trials[0], trials[2]))


def test_a_trial_of_two_tasks_through_submitit_trains_one_model(ask, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install '.[sweep]'")
    tasks = ["hydra/launcher=slurm", "hydra.launcher.tasks_per_node=2", "hydra.sweep.dir=sweep"]
    done = ask(*TRAIN, *SETTINGS, "-m", *tasks, "seed=1", timeout=200)
    assert done.returncode == 0, done.stderr
    (summary,) = summaries(tmp_path)
    assert summary["tokens_seen"] == 4 * 2 * 2 * 64


def test_a_batch_script_without_srun_trains_plainly_whatever_tasks_it_has(submit, ended, tmp_path):
    said = ended(submit(words(), options="--ntasks-per-node=2"))
    (summary,) = summaries(tmp_path)
    assert summary["tokens_seen"] == 4 * 2 * 64, said


def test_a_batch_script_with_torchrun_trains_in_the_jobs_folder(submit, ended, tmp_path):
    torchrun = Path(sys.executable).with_name("torchrun")
    job = submit(f"{torchrun} --nproc-per-node=2 {' '.join(words().split()[1:])}", options="-n2")
    said = ended(job)
    (summary,) = summaries(tmp_path)
    assert summary["tokens_seen"] == 4 * 2 * 2 * 64, said
    assert [path.name.startswith(f"job-{job}-") for path in tmp_path.glob("outputs/*")] == [True]


def test_the_jobs_of_an_array_have_a_folder_each(submit, ended, tmp_path):
    job = submit(f"srun {words()} seed=$SLURM_ARRAY_TASK_ID", options="-n1 --array=1-2")
    said = ended(job)
    assert len(summaries(tmp_path)) == 2, said
    names = sorted(path.name.rpartition("-")[0] for path in tmp_path.glob("outputs/*"))
    assert names == [f"job-{job}_1", f"job-{job}_2"]


def test_a_killed_task_ends_the_others_which_name_it(cluster, tmp_path):
    endless = ["trainer.max_steps=100000", "trainer.eval_every=100000", "trainer.checkpoint_every=5"]
    command = ["srun", "-n2", *TRAIN, *SETTINGS, *endless, "hydra.run.dir=run"]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=tmp_path, env=cluster, stdout=said, stderr=said)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("run/checkpoints/step-*/manifest.json")):
        assert time.monotonic() < until, (tmp_path / "said").read_text()
        time.sleep(0.2)
    os.kill(rank_of(tmp_path, 1), 9)
    killed = time.monotonic()
    assert process.wait(timeout=60) != 0
    assert time.monotonic() - killed < 15
    assert "error: rank 1 of 2 on " in (tmp_path / "said").read_text()
    assert "resume=run goes on from step-0" in (tmp_path / "said").read_text()


def rank_of(folder: Path, rank: int) -> int:
    """The process id of the task that trains in `folder` as `rank`."""
    for entry in Path("/proc").iterdir():
        try:
            if Path(os.readlink(entry / "cwd")) == folder and entry.name.isdigit():
                variables = (entry / "environ").read_bytes().split(b"\0")
                arguments = (entry / "cmdline").read_bytes()
                if (
                    f"SLURM_PROCID={rank}".encode() in variables
                    and b"train.py" in arguments
                    and b"srun" not in arguments
                ):
                    return int(entry.name)
        except OSError:
            continue
    raise AssertionError(f"no task of rank {rank}")


LONGER = ["trainer.max_steps=60", "trainer.checkpoint_every=20", "trainer.eval_every=20"]


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run(
        ["srun", "-n2", *TRAIN, *SETTINGS, *LONGER], cwd=folder, env=cluster, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return losses(folder)


@pytest.mark.parametrize("when", ["start-up", "training"])
def test_a_job_that_is_signalled_is_requeued_and_ends_in_its_folder(
    ask, ended, cluster, tmp_path, undisturbed, when
):
    script = subprocess.run(
        [sys.executable, "-m", "gpt_pretrain.slurm", "tasks=2", "--", *SETTINGS, *LONGER],
        env=cluster,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / "job.sh").write_text(script.replace("slurm-%j.out", "log.txt"))
    job = ask("sbatch", "--parsable", "job.sh").stdout.strip()
    until = time.monotonic() + 60
    due = "task" if when == "start-up" else "row"
    while not _has_begun(tmp_path, due):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert ask("scancel", "--signal=USR1", job).returncode == 0
    said = ended(job, 150)
    (folder,) = tmp_path.glob("outputs/*")
    assert folder.name.startswith(f"job-{job}-")
    (summary,) = summaries(tmp_path)
    assert (summary["steps"], summary["exit_reason"]) == (60, "finished"), said
    assert losses(tmp_path) == pytest.approx(undisturbed, abs=1e-6)
    assert not list(tmp_path.rglob("*hpc_ckpt*"))
    assert not list(tmp_path.rglob("*.partial"))


def _has_begun(folder: Path, what: str) -> bool:
    if what == "row":
        return any(len(file.read_text().splitlines()) > 10 for file in folder.rglob("metrics.csv"))
    try:
        return bool(rank_of(folder, 0))
    except AssertionError:
        return False
