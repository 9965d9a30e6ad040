"""A process that its main thread cannot end says what it was at, and ends."""

import subprocess
import sys

from tests.conftest import ROOT

STUCK = """
import sys, time
from pathlib import Path
from torch.distributed import HashStore
from gpt_pretrain.launch.launchers import Process
from gpt_pretrain.launch.watch import Watch

def waits_for_an_answer():
    while True:
        time.sleep(1)

store = HashStore()
watch = Watch(store, Process(rank=1, world_size=2), {}, silence=60)
watch.run = Path(sys.argv[1])
if sys.argv[2:]:  # the file system hangs
    watch._write_stacks = lambda: time.sleep(600)
store.set("lost", '[0, "has not answered for 60 s"]')  # as the first process tells it
waits_for_an_answer()
"""


def test_a_stuck_process_writes_where_each_of_its_threads_is_and_names_the_lost_one(tmp_path):
    elsewhere, run = tmp_path / "elsewhere", tmp_path / "run"
    run.mkdir()
    elsewhere.write_text("kept")
    (run / "rank-1.stacks.txt").symlink_to(elsewhere)  # not followed, though it stands there
    command = [sys.executable, "-c", STUCK, str(run)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5, done.stderr
    where, last = done.stderr.splitlines()[-2:]
    assert last.startswith("error: rank 0 of 2 on ")
    assert last.endswith(" has not answered for 60 s: start it again")
    assert where == f"what this process was at: {run / 'rank-1.stacks.txt'}"
    assert "waits_for_an_answer" in (run / "rank-1.stacks.txt").read_text()
    assert elsewhere.read_text() == "kept"


def test_it_ends_too_where_no_file_can_be_written(tmp_path):
    command = [sys.executable, "-c", STUCK, str(tmp_path), "hangs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5, done.stderr
    assert done.stderr.strip().endswith(" has not answered for 60 s: start it again")
