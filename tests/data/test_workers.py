"""Processes that tokenize are started whole, whatever signal comes meanwhile."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from gpt_pretrain.data.workers import _signals_held
from tests.conftest import ROOT


class Answered(BaseException):
    pass


def _answer(number, frame):
    raise Answered(signal.Signals(number).name)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
@pytest.mark.parametrize("thread", ["alone", "beside another"])
def test_a_signal_amid_the_start_of_a_process_is_answered_after_it(name, thread):
    """Another thread, as that which listens for a second signal, takes what the main one has masked."""
    number, done, steps = signal.Signals[name], threading.Event(), []

    def start():
        with _signals_held():
            os.kill(os.getpid(), number)
            for _ in range(20):
                time.sleep(0.005)
            steps.append("started")

    if thread == "beside another":
        threading.Thread(target=done.wait, daemon=True).start()
    before = signal.signal(number, _answer)
    try:
        with pytest.raises(Answered, match=name):
            start()
        assert steps == ["started"]
        assert signal.getsignal(number) is _answer
    finally:
        signal.signal(number, before)
        done.set()


SCRIPT = """
from gpt_pretrain.data.workers import encode_batches
from gpt_pretrain.tokenizer import build_tokenizer
print("begun", flush=True)
batches = [[(0, True, "ab")]] * 3
made = list(encode_batches(batches, build_tokenizer("bytes"), 1, allow_special=False, dtype="uint16"))
print([batch[0].tokens.tolist() for batch in made])
"""


def test_a_script_without_a_guard_tokenizes_in_processes_of_its_own(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["begun", "[[256, 97, 98], [256, 97, 98], [256, 97, 98]]"], done.stderr
