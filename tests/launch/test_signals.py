"""A signal ends a program in good order, whenever it comes; a second one ends it at once."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from gpt_pretrain.launch import signals
from gpt_pretrain.launch.signals import ENDING, Interrupted, check, deferred, hearing, received
from tests.conftest import ROOT


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_raises_what_no_library_catches_for_its_own(number):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as interrupted, hearing(), contextlib.suppress(Exception):
        signal.raise_signal(number)
    assert interrupted.value.number == number
    assert (received(), signal.getsignal(number)) == (None, before)


def test_while_a_run_trains_a_signal_is_a_flag():
    with hearing():
        with deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            assert received() == signal.SIGTERM
        with pytest.raises(Interrupted):
            check()  # what nobody has answered is not lost


def test_what_sends_one_signal_twice_asks_once(monkeypatch):
    left = []
    monkeypatch.setattr(signals, "_leave", lambda number, why: left.append((number, why)))
    with deferred():
        for later in (0.0, 0.1, 5.0):
            monkeypatch.setattr(signals, "monotonic", lambda later=later: 100 + later)
            signals._count(signal.SIGINT)
    assert left == [(signal.SIGINT, "interrupted again, so nothing more was saved")]


def test_a_process_that_is_forked_leaves_its_parents_signals_to_it():
    with deferred():
        child = os.fork()
        if not child:
            code = 1
            try:
                os.kill(os.getpid(), signal.SIGINT)  # as the terminal sends it to all
                code = 0 if received() is None and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        time.sleep(0.05)
        assert received() is None


WAITING = """
import os, sys, threading
from gpt_pretrain.launch.signals import deferred
with deferred():
    print("now", flush=True)
    lock = os.pipe()
    {wait}
"""


@pytest.mark.parametrize(
    "wait",
    [
        "while True: pass",
        # In C, as gloo waits: a mutex that is locked already.
        "import ctypes; m = (ctypes.c_char * 64)(); f = ctypes.CDLL(None).pthread_mutex_lock; f(m); f(m)",
    ],
)
def test_a_second_signal_leaves_at_once_wherever_the_first_one_waits(wait):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING.format(wait=wait)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=5)
    assert (process.returncode, said) == (143, "error: interrupted again, so nothing more was saved\n")


@pytest.mark.parametrize("name", ["train.py", "generate.py"])
def test_before_anything_is_imported_a_signal_is_answered(name):
    """The first line of the program is its first import of ours."""
    program = (
        "import builtins, os, runpy, signal, sys\n"
        "real = builtins.__import__\n"
        "def hears(name, *rest):\n"
        "    if name == 'gpt_pretrain.cli.commands': os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = hears\n"
        f"sys.argv[:] = [{str(ROOT / name)!r}]\n"
        f"runpy.run_path({str(ROOT / name)!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (143, "error: interrupted by SIGTERM\n")
