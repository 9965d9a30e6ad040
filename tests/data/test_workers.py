"""Processes that tokenize are started whole, whatever signal comes meanwhile."""

import os
import signal
import threading
import time

import pytest

from gpt_pretrain.data.workers import _signals_held


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
