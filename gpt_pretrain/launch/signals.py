"""Signals that end a program in good order, heard from its first line on.

Until training begins, the first one ends the program: nothing is left to save. While `deferred`, it sets a
flag that training asks for, to end its step and save. A second one ends the process at once, wherever it is:
a thread of its own hears of it, also while the main one waits in C code, as for another rank.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from gpt_pretrain.errors import InputError, UserFacingError
from gpt_pretrain.launch.process import process

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # each: save, where there is something to save, and end
ENDING = tuple(int(getattr(signal, name)) for name in NAMES if hasattr(signal, name))
# What sends one signal may send it twice: `timeout` to its child and its group, a launcher what its ranks got
# from the terminal themselves. Seconds in which it is one.
AT_ONCE, PASSED_ON = 0.3, 2.0
PASSES_ON = "GPT_PRETRAIN_PASSES_ON"  # in the environment of what a program of ours started, as a launcher


class Interrupted(KeyboardInterrupt):
    """A signal came before there was anything to save. No library takes it for an error of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {name_of(number)}")
        self.number = number


@dataclass(slots=True)
class _Heard:
    number: int | None = None
    since: float = 0.0  # by the monotonic clock
    answer: str = "leave"  # until a program runs; then "raise", and while it trains "flag"
    before: dict[int, Any] = field(default_factory=dict)  # handlers to be put back
    ear: socket.socket | None = None


_heard = _Heard()


def name_of(number: int) -> str:
    return signal.Signals(number).name


def received() -> int | None:
    """The number of the signal that asked this process to end."""
    return _heard.number


def forget() -> None:
    """The signal was answered otherwise: it asks for no end any more."""
    _heard.number = None


def check() -> None:
    """Raise Interrupted where a signal came that somebody on the way has swallowed."""
    if _heard.number is not None:
        raise Interrupted(_heard.number)


@contextmanager
def interruptions_first() -> Iterator[None]:
    """A library that is interrupted amid its work may fail over what it left half done: that is no error of
    its own, but the interruption.
    """
    try:
        yield
    except UserFacingError:
        raise
    except Exception as error:
        link: BaseException | None = error
        while link is not None and not isinstance(link, Interrupted):
            link = link.__cause__ or link.__context__
        if link is None:
            raise
        raise link from None


def listen() -> None:
    """Answer signals from here on, if this is the main thread. Again: over whoever took them meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        return
    if _heard.ear is None:
        _heard.number = None
        _open_ear()
    for number in ENDING:
        if signal.getsignal(number) is _answer:
            continue
        if name_of(number) == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup's
        previous = signal.signal(number, _answer)
        _heard.before.setdefault(number, previous)


@contextmanager
def hearing() -> Iterator[None]:
    """A program runs: a signal raises Interrupted in it. Afterwards all is as it was."""
    listens, answer = _heard.ear is not None, _heard.answer
    listen()
    _heard.answer = "raise"
    try:
        if listens:
            check()
        yield
    finally:
        _heard.answer = answer
        if not listens:
            _deafen()


@contextmanager
def deferred() -> Iterator[None]:
    """While the body runs a signal sets the flag that `received` reads, and no more."""
    with hearing():
        _heard.answer = "flag"
        yield


def _answer(number: int, frame: Any) -> None:
    """In the main thread, as soon as it runs Python again."""
    if _heard.number is None:
        _heard.number, _heard.since = number, monotonic()
    if _heard.answer == "leave":
        _leave(_heard.number, f"interrupted by {name_of(_heard.number)}")
    if _heard.answer == "raise":
        raise Interrupted(_heard.number)


def _open_ear() -> None:
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)
    signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    _heard.ear = mouth
    threading.Thread(target=_hear, args=(ear, mouth), daemon=True, name="signals").start()


def _hear(ear: socket.socket, mouth: socket.socket) -> None:
    with ear:
        while numbers := ear.recv(64):
            for number in numbers:
                if number in ENDING and _heard.ear is mouth:  # not of a program that has ended since
                    _count(number)


def _count(number: int) -> None:
    now = monotonic()
    if _heard.number is None:
        _heard.number, _heard.since = number, now
    elif now - _heard.since > (PASSED_ON if _has_launcher() else AT_ONCE):
        _leave(number, "interrupted again, so nothing more was saved")


def _has_launcher() -> bool:
    try:
        return PASSES_ON in os.environ or process().launcher is not None
    except InputError:  # which the program is about to say
        return True


def _leave(number: int, why: str) -> None:
    shown = "\x1b[?25h" if sys.stderr and sys.stderr.isatty() else ""  # the cursor that a progress bar hides
    try:
        os.write(2, f"{shown}error: {why}\n".encode())
    finally:
        os._exit(128 + number)


def _deafen() -> None:
    for number, handler in _heard.before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    _heard.before.clear()
    signal.set_wakeup_fd(-1)
    assert _heard.ear is not None
    _heard.ear.close()
    _heard.ear, _heard.number = None, None


def leave_to_parent(worker: int) -> None:
    """For a loader's process, over torch's own handler: a signal to all processes of a run, as `timeout` and
    clusters send, is its main process's to answer, which needs this one to end its step.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _in_child() -> None:
    """A forked process, as a loader's: its parent answers the terminal's signals, and ends it."""
    if _heard.ear is not None:
        signal.set_wakeup_fd(-1)
        for number in ENDING:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)


def _raised_where_nobody_catches(unraisable: Any) -> None:
    if not isinstance(unraisable.exc_value, Interrupted):  # in a destructor, say: `check` raises it again
        _hook(unraisable)


_hook, sys.unraisablehook = sys.unraisablehook, _raised_where_nobody_catches
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
