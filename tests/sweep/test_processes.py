"""Sweeps that are killed, shared, run side by side, launched elsewhere: what needs processes of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import QUICK, ROOT

pytestmark = pytest.mark.slow

SETTINGS = [
    *(*QUICK, "model.n_layers=1", "model.emb_dim=32", "trainer.max_steps=6", "trainer.eval_batches=1"),
    *("trainer.eval_every=3", "trainer.sample_every=6", "trainer.checkpoint_every=2", "logger=csv"),
]
NAMED = "hydra.sweep.dir=sweep"


def statuses(sweep: Path) -> list[str]:
    return [json.loads(file.read_text())["status"] for file in sorted((sweep / "trials").glob("*.json"))]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    """What tests/sweep/killed.py finds of each search."""
    searches = ["grid", "tpe", "shared"] if importlib.util.find_spec("optuna") else ["grid", "shared"]
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "tests.sweep.killed", str(folder), ",".join(searches), *SETTINGS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("search", ["grid", "tpe"])
def test_a_sweep_killed_ten_times_ends_as_one_that_never_was(found, search):
    if search not in found:
        pytest.skip("optuna is not installed")
    of = found[search]
    assert (of["alive"], of["wrong"]) == (10, [])
    assert of["killed"] == of["whole"]  # each trial's status, point and loss, to the last digit
    counted = Counter(status for status, _, _ in of["whole"].values())
    assert counted == {"finished": 10, "failed": 1, "diverged": 1}
    assert of["codes"] == [4, 4]


def test_two_processes_on_one_sweep_run_each_trial_once(found):
    shared = found["shared"]
    assert sorted(map(int, shared["ran"])) == list(range(20))
    assert [status for status, _, _ in shared["shared"].values()] == ["finished"] * 20
    assert shared["codes"] == [0, 0]
    assert len(set(shared["pids"])) == 2


# Imported by every Python: the process that trains trial 1 dies, as by the kernel when memory runs out.
DEADLY = """
import json, os, signal, threading, time
def watch():
    while True:
        time.sleep(0.01)
        file = os.environ.get("GPT_PRETRAIN_TRIAL", "")
        if file.endswith("00001.json"):
            trial = json.load(open(file))
            if (trial["status"], trial["pid"]) == ("running", os.getpid()):  # it has begun, in this process
                os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
"""


@pytest.mark.parametrize(
    "how",
    [["sweep.jobs=2"], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], ["hydra/launcher=ray"]],
    ids=lambda how: how[0],
)
def test_a_trial_that_ends_its_process_each_time_is_given_up_and_the_rest_runs(program, tmp_path, how):
    if "sweep.jobs=2" not in how:
        pytest.importorskip(f"hydra_plugins.hydra_{how[0].rpartition('=')[2]}_launcher")
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    words = ["optimizer.lr=1e-4,1e-3,1e-2,2e-2", *how, NAMED]
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = program("train.py", "-m", *SETTINGS, *words, env=env)
    assert statuses(tmp_path / "sweep") == ["finished", "failed", "finished", "finished"], done.stderr
    assert (done.returncode, "its process " in done.stderr) == (5, True), done.stderr
    assert done.stdout.count("  finished  val loss") == 3  # a line for each, in the process that was started
    assert "experiment=best" in done.stdout


@pytest.mark.parametrize(
    "how",
    [["joblib", "hydra.launcher.n_jobs=2"], ["submitit_local", "hydra.launcher.timeout_min=5"], ["ray"]],
    ids=lambda how: how[0],
)
def test_under_every_launcher_a_trial_that_diverges_is_the_sweep_s_exit_code(program, tmp_path, how):
    pytest.importorskip(f"hydra_plugins.hydra_{how[0].partition('_')[0]}_launcher")
    words = [f"hydra/launcher={how[0]}", *how[1:], "optimizer.lr=1e-3,1e308,1e-2", NAMED]
    done = program("train.py", "-m", *SETTINGS, "trainer.grad_clip=null", *words)
    assert done.returncode == 4, done.stderr
    assert statuses(tmp_path / "sweep") == ["finished", "diverged", "finished"]
    assert done.stdout.count("  finished  val loss") == 2
    assert "1 of 3 trials have no result" in done.stderr


def test_under_submitit_a_trial_on_two_devices_trains_with_the_folder_of_settings(program, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    (tmp_path / "my" / "model").mkdir(parents=True)
    (tmp_path / "my" / "model" / "mine.yaml").write_text((ROOT / "conf" / "model" / "tiny.yaml").read_text())
    words = ["model=mine", "data.batch_size=4", "trainer.devices=2", "hydra/launcher=submitit_local", NAMED]
    done = program("train.py", "--config-dir", "my", "-m", *SETTINGS, *words)
    assert done.returncode == 0, done.stderr
    (trial,) = (json.loads(file.read_text()) for file in (tmp_path / "sweep" / "trials").glob("*.json"))
    assert (trial["status"], trial["tokens_seen"]) == ("finished", 6 * 2 * 4 * 64)
