"""One process at a time in a run's folder."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.runs import owner
from gpt_pretrain.runs.owner import LOCK, OWNER, owned
from tests.conftest import ROOT

HOLD = """
import sys, time
from pathlib import Path
from gpt_pretrain.runs.owner import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path/run until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_refused_with_host_pid_and_start_and_changes_nothing(holder, tmp_path):
    run = tmp_path / "run"
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    holding = json.loads(before[OWNER])
    with pytest.raises(InputError, match="is in use by another process") as refused, owned(run):
        pass
    assert all(str(holding[key]) in str(refused.value) for key in ("host", "pid", "started"))
    assert holding["pid"] == holder.pid
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_signal_at_any_line_of_taking_a_folder_leaves_no_trace_of_it(tmp_path):
    """As Python answers one: between two lines of ours."""
    source, left, n_lines = owner.__file__, [], 0

    def interrupting(at):
        lines = 0

        def trace(frame, event, argument):
            nonlocal lines
            if frame.f_code.co_filename != source:
                return None
            lines += event == "line"
            if event == "line" and lines == at:
                raise KeyboardInterrupt
            return trace

        return trace

    while True:
        n_lines += 1
        run = tmp_path / str(n_lines) / "run"
        before = sys.gettrace()
        try:
            sys.settrace(interrupting(n_lines))
            with owned(run):
                sys.settrace(before)
                break
        except KeyboardInterrupt:
            left += [path for path in (run.parent, run) if path.exists()]
        finally:
            sys.settrace(before)
    assert n_lines > 10
    assert left == []


def test_the_folder_of_a_dead_owner_is_taken_over(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / OWNER).exists()
    with owned(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / OWNER).read_text())["pid"] == os.getpid()
    assert not (tmp_path / "run" / OWNER).exists()


def test_children_of_a_dead_owner_do_not_hold_its_folder(tmp_path):
    forks = HOLD.replace('print("held"', 'import os; os.fork() and time.sleep(60); print("held"')
    holder = subprocess.Popen(
        [sys.executable, "-c", forks, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with owned(tmp_path / "run"):
            pass
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate()


def test_a_note_left_on_another_machine_is_said(tmp_path, caplog):
    run = tmp_path / "run"
    run.mkdir()
    (run / OWNER).write_text('{"host": "node7", "pid": 12, "started": "2026-01-01 00:00:00"}')
    with owned(run):
        pass
    assert "pid 12 on node7, since 2026-01-01 00:00:00" in caplog.text
    with owned(run):  # and not again after a good end
        pass
    assert caplog.text.count("node7") == 1


@pytest.mark.parametrize("error", [InputError, ArtifactError])
def test_a_refusal_leaves_no_trace(tmp_path, error):
    (tmp_path / "standing").mkdir()
    for folder in ("standing", "new/run"):
        with pytest.raises(error), owned(tmp_path / folder):
            raise error("no")
    assert [path.name for path in tmp_path.rglob("*")] == ["standing"]


def test_what_was_written_stays(tmp_path):
    with owned(tmp_path / "run"):
        (tmp_path / "run" / "file").write_text("")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {LOCK, "file"}


@pytest.mark.parametrize("name", [LOCK, OWNER, "metrics.csv"])
def test_a_link_in_the_folder_is_not_written_through(tmp_path, name):
    (tmp_path / "canary").write_text("untouched")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "canary")
    with pytest.raises(ArtifactError, match="is not followed"), owned(tmp_path / "run"):
        pass
    assert (tmp_path / "canary").read_text() == "untouched"
    assert Path(tmp_path / "run" / name).is_symlink()
