"""What needs processes of its own: several ranks, torchrun, sweeps over devices, signals."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import QUICK, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.trains]

SETTINGS = [
    *(*QUICK, "trainer.max_steps=6", "trainer.eval_every=3"),
    *("trainer.log_every=1", "trainer.eval_batches=3"),
]
# Two processes cut a sum over a batch in two: in float32 that stays below what is compared, in bfloat16
# it does not.
COMPARED = [*SETTINGS, "trainer.precision=32-true"]


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def assert_same_losses(one: Path, other: Path):
    for ours, theirs in zip(metrics(one), metrics(other), strict=True):
        for key in ("train/loss", "val/loss"):
            assert bool(ours[key]) == bool(theirs[key])
            if ours[key]:
                assert float(ours[key]) == pytest.approx(float(theirs[key]), abs=1e-5)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    command = [sys.executable, ROOT / "train.py", *COMPARED, "data.batch_size=4", "hydra.run.dir=alone"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "alone"


@pytest.fixture
def alone(trained_once, tmp_path) -> Path:
    return shutil.copytree(trained_once, tmp_path / "alone")


# trainer.eval_batches counts batches of a device: 3 of 4 windows are 6 of 2 on two devices, each window once.
TWO = ["data.batch_size=2", "trainer.eval_batches=3"]


def test_two_processes_train_like_one_on_the_same_global_batch(program, tmp_path, alone):
    done = program("train.py", *COMPARED, *TWO, "trainer.devices=2", "hydra.run.dir=two")
    assert done.returncode == 0, done.stderr
    assert_same_losses(alone, tmp_path / "two")
    assert {path.name for path in tmp_path.iterdir()} == {"alone", "two"}


def test_torchrun_gives_the_same_run_in_one_folder(tmp_path, alone):
    torchrun = Path(sys.executable).with_name("torchrun")
    command = [torchrun, "--nproc-per-node=2", ROOT / "train.py", *COMPARED, *TWO]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("outputs/*/*")
    assert_same_losses(alone, run)


def test_a_sweep_over_devices_leaves_nothing_from_one_trial_to_the_next(program, tmp_path):
    done = program(
        "train.py",
        "-m",
        *SETTINGS,
        "trainer.devices=2,1",
        "data.batch_size=2",
        "hydra.sweep.dir=sweep",
    )
    assert done.returncode == 0, done.stderr
    summaries = [json.loads((tmp_path / "sweep" / n / "summary.json").read_text()) for n in "01"]
    assert [summary["tokens_seen"] for summary in summaries] == [6 * 4 * 64, 6 * 2 * 64]


def test_joblib_runs_trials_of_one_and_of_two_devices(program, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install '.[sweep]'")
    words = ["hydra/launcher=joblib", "trainer.devices=1,2", "data.batch_size=2", "hydra.sweep.dir=sweep"]
    done = program("train.py", "-m", *SETTINGS, *words)
    assert done.returncode == 0, done.stderr
    summaries = [json.loads((tmp_path / "sweep" / n / "summary.json").read_text()) for n in "01"]
    assert [summary["tokens_seen"] for summary in summaries] == [6 * 2 * 64, 6 * 4 * 64]


@pytest.fixture
def endless(tmp_path):
    """Starts a run in `run`, in a group of its own, and waits for its first steps."""
    started = []

    def start(*words: str) -> subprocess.Popen:
        budget = ["trainer.max_steps=100000", "trainer.eval_every=100000", "hydra.run.dir=run"]
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *SETTINGS, *budget, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "metrics.csv").is_file() or len(metrics(tmp_path / "run")) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        return process

    yield start
    for process in started:
        process.kill()


@pytest.mark.parametrize(
    ("number", "to_all"), [(signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGTERM, True)]
)
def test_a_signal_saves_and_the_run_goes_on_from_there(program, tmp_path, endless, number, to_all):
    process = endless(*["data.num_workers=2"] * to_all)
    if to_all:  # as `timeout`, systemd and clusters send it, the loader's processes included
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "saved: go on with resume=run" in said
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["exit_reason"] == f"signal {int(number)}"
    steps = summary["steps"]
    done = program("train.py", "resume=run", f"trainer.max_steps={steps + 1}", "trainer.eval_every=1")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == steps + 1


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="finds the loader's processes in Linux's /proc"
)
def test_a_loader_s_process_that_dies_is_one_line(endless):
    process = endless("data.num_workers=2")
    (children,) = Path(f"/proc/{process.pid}/task/{process.pid}").glob("children")
    os.kill(int(children.read_text().split()[-1]), signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, "Traceback" in said) == (5, False), said
    assert "a process that loads data died" in said


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_signal_to_a_sweep_over_devices_saves_its_trial(tmp_path, jobs):
    endless = [
        "trainer.max_steps=100000",
        "trainer.eval_every=100000",
        "trainer.devices=2",
        "data.batch_size=2",
    ]
    words = [*SETTINGS, *endless, "seed=7", f"sweep.jobs={jobs}", "hydra.sweep.dir=sweep"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-m", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    run, deadline = tmp_path / "sweep" / "0", time.monotonic() + 120
    while not (run / "metrics.csv").is_file() or len(metrics(run)) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.terminate()  # it alone: a terminal would tell all
    assert process.wait(timeout=120) == 128 + signal.SIGTERM
    summary = json.loads((run / "summary.json").read_text())
    assert summary["exit_reason"] == f"signal {int(signal.SIGTERM)}"
    assert list(run.glob(f"checkpoints/step-{summary['steps']:08}/manifest.json"))
    record = json.loads((tmp_path / "sweep" / "trials" / "00000.json").read_text())
    assert record["status"] == "interrupted"


@pytest.mark.parametrize("arguments", [["--help"], ["model.n_layr=2"], ["optimizer=adamx"]])
def test_help_and_a_typo_load_no_heavy_library(program, arguments):
    done = program("train.py", *arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
    loaded = {
        line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time")
    }
    assert "hydra" in loaded
    assert not loaded & {"torch", "lightning", "transformers", "tiktoken", "matplotlib", "numpy"}


def test_generation_does_not_import_lightning(program, tmp_path):
    assert program("train.py", *SETTINGS, "trainer.max_steps=1").returncode == 0
    done = program("generate.py", "prompt=Every", env={"PYTHONPROFILEIMPORTTIME": "1"})
    loaded = {
        line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time")
    }
    assert "torch" in loaded
    assert "lightning" not in loaded
    assert done.stdout.startswith("Every")


@pytest.mark.trains
def test_a_second_process_is_kept_out_of_a_run_that_trains(program, tmp_path):
    endless = ["trainer.max_steps=100000", "trainer.eval_every=100000", "trainer.checkpoint_every=5"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *SETTINGS, *endless, "hydra.run.dir=outputs/day/run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    run = tmp_path / "outputs" / "day" / "run"
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/step-*/manifest.json")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    partial = run / "checkpoints" / ".step-00099999.1.partial"
    partial.mkdir()
    for second in ("resume=auto", "resume=outputs/day/run", "hydra.run.dir=outputs/day/run"):
        done = program("train.py", *SETTINGS, second, "trainer.max_steps=3")
        assert (done.returncode, f"pid {process.pid} on" in done.stderr) == (2, True), done.stderr
        assert partial.is_dir()  # of the living one, perhaps
    process.kill()
    process.wait()
    done = program("train.py", "resume=auto", "trainer.max_steps=100001", "trainer.max_tokens=1")
    assert done.returncode == 2  # the dead one's folder is open to others: this budget is too small
    assert "trainer.max_tokens=1" in done.stderr
    steps = [int(row["step"]) for row in metrics(run)]
    assert steps == sorted(set(steps))


def test_every_rank_ends_where_the_run_is_at_its_end_already(tmp_path, alone):
    torchrun = Path(sys.executable).with_name("torchrun")
    command = [torchrun, "--nproc-per-node=2", ROOT / "train.py", "resume=alone", "data.batch_size=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "is at its last step 6 already" in done.stdout
