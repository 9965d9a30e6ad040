"""Several processes: nobody waits without a word, and who is lost is named by the others."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gpt_pretrain.launch.process import without_launcher
from tests.conftest import QUICK, ROOT

pytestmark = pytest.mark.slow

ALONE = [sys.executable, str(ROOT / "train.py")]
TORCHRUN = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node=2", str(ROOT / "train.py")]
SETTINGS = [
    *(*QUICK, "data.batch_size=2", "trainer.eval_batches=2", "hydra.run.dir=run"),
    *("trainer.max_steps=100000", "trainer.eval_every=100000", "trainer.checkpoint_every=5"),
]


@pytest.fixture
def environment():
    return {**without_launcher(os.environ), "PYTHONPATH": str(ROOT)}


def test_a_process_that_never_comes_is_waited_for_aloud_and_not_for_ever(tmp_path, environment):
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    alone |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29631"}
    command = [*ALONE, *SETTINGS, "trainer.start_timeout=12"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment | alone, capture_output=True, text=True, timeout=100
    )
    said = done.stdout + done.stderr
    assert done.returncode == 5, said
    assert "waiting for rank 1 of 2 on " in said
    assert (
        said.strip().splitlines()[-1].startswith("error: waited 12 s (trainer.start_timeout) for rank 1 of 2")
    )


@pytest.fixture
def started(tmp_path, environment):
    """A run of two processes that has saved something: the launcher, and the ranks' process ids."""
    processes = []

    def start(*more: str, by: list[str] = TORCHRUN):
        with (tmp_path / "said").open("w") as said:
            processes.append(
                subprocess.Popen(
                    [*by, *SETTINGS, *more], cwd=tmp_path, env=environment, stdout=said, stderr=said
                )
            )
        until = time.monotonic() + 100
        while not list(tmp_path.glob("run/checkpoints/step-*/manifest.json")):
            assert time.monotonic() < until, (tmp_path / "said").read_text()
            assert processes[0].poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.2)
        return processes[0], ranks_below(processes[0].pid)

    yield start
    for process in processes:
        for pid in ranks_below(process.pid).values():
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def ranks_below(parent: int) -> dict[int, int]:
    """The process id of each rank that `parent` started."""
    found = {}
    children = Path(f"/proc/{parent}/task/{parent}/children")
    for pid in map(int, children.read_text().split() if children.is_file() else ()):
        for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if variable.startswith((b"RANK=", b"LOCAL_RANK=")):  # one machine: the same number
                found[int(variable.partition(b"=")[2])] = pid
    return found


@pytest.mark.parametrize("victim", [0, 1])
def test_under_torchrun_a_killed_process_ends_all_and_our_line_is_the_last(started, tmp_path, victim):
    process, ranks = started()
    os.kill(ranks[victim], signal.SIGKILL)
    began = time.monotonic()
    assert process.wait(timeout=60) != 0
    assert time.monotonic() - began < 10
    time.sleep(0.5)
    last = (tmp_path / "said").read_text().strip().splitlines()[-1]
    assert last.startswith(f"error: rank {victim} of 2 on "), last
    assert " was lost at step " in last
    assert "resume=run goes on from step-" in last


def test_a_killed_child_ends_the_run_that_started_it_which_says_so(started, tmp_path):
    process, ranks = started("trainer.devices=2", by=ALONE)
    os.kill(ranks[1], signal.SIGKILL)
    assert process.wait(timeout=30) == 5
    last = (tmp_path / "said").read_text().strip().splitlines()[-1]
    assert last.startswith("error: rank 1 of 2 on "), last
    assert "resume=run goes on from step-" in last


def test_a_child_that_ends_before_it_comes_is_not_waited_for(tmp_path, environment):
    fails = "import os\nif os.environ.get('LOCAL_RANK') == '1': os._exit(3)\n"
    (tmp_path / "sitecustomize.py").write_text(fails)
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{ROOT}"
    command = [*ALONE, *SETTINGS, "trainer.devices=2"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 5, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: rank 1 of 2 on ")
    assert "ended with exit code 3: start it again" in last


def test_a_stopped_process_is_named_by_the_other_which_ends(started, tmp_path):
    process, ranks = started("trainer.silence_timeout=5")
    os.kill(ranks[1], signal.SIGSTOP)
    until = time.monotonic() + 30
    while "has not answered for" not in (said := (tmp_path / "said").read_text()):
        assert time.monotonic() < until, said
        time.sleep(0.2)
    with suppress(ProcessLookupError):  # torchrun would wait half a minute for it, so the other may end it
        os.kill(ranks[1], signal.SIGKILL)
    assert process.wait(timeout=60) != 0
    assert "error: rank 1 of 2 on " in said
    assert "in train" in (tmp_path / "run" / "rank-0.stacks.txt").read_text()  # what it waited in


def test_a_killed_run_goes_on_when_it_is_started_again(started, tmp_path, environment):
    process, ranks = started()
    os.kill(ranks[1], signal.SIGKILL)
    process.wait(timeout=60)
    (tmp_path / "said").unlink()
    newest = max(int(path.name[5:]) for path in tmp_path.glob("run/checkpoints/step-*"))
    more = ["resume=run", f"trainer.max_steps={newest + 3}", "trainer.eval_every=100000"]
    done = subprocess.run([*TORCHRUN, *more], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == newest + 3


@pytest.mark.parametrize("to", ["torchrun", "rank 1 alone", "the first of two, without torchrun"])
def test_a_signal_to_any_process_saves_once_and_ends_all(started, tmp_path, to):
    """A launcher has an exit code of its own; the line is ours."""
    by = ["trainer.devices=2"] if to.startswith("the first") else []
    process, ranks = started(*by, by=ALONE if by else TORCHRUN)
    os.kill(ranks[1] if to == "rank 1 alone" else process.pid, signal.SIGTERM)
    code = process.wait(timeout=60)
    said = (tmp_path / "said").read_text()
    assert (code == 128 + signal.SIGTERM) if by else (code != 0), said
    assert said.count("saved: go on with resume=run") == 1, said
    assert said.count("Traceback") == (not by), said  # torchrun's own
    newest = max(int(path.name[5:]) for path in tmp_path.glob("run/checkpoints/step-*"))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == newest
