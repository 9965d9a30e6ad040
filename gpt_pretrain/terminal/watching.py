"""What only watches a run never ends it: samples, plots, loggers, progress bars, the terminal."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gpt_pretrain.errors import DivergedError, StoppedError

log = logging.getLogger(__name__)

_told: set[str] = set()  # the kinds of what has failed since `forget`


@contextmanager
def watching(kind: str) -> Iterator[None]:
    """Make one warning of whatever fails inside, the first time for this `kind`.

    It is tried again each time, silently: a disk that was full may have room later. What ends a run on
    purpose passes: DivergedError, which a sample may find, StoppedError, KeyboardInterrupt, SystemExit.
    """
    try:
        yield
    except (DivergedError, StoppedError, KeyboardInterrupt, GeneratorExit):
        raise
    except SystemExit as error:  # rich's answer to a reader that has left
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        tell(kind, error.__context__)
    except BaseException as error:  # a panic of a tokenizer written in Rust is no Exception
        tell(kind, error)


@contextmanager
def watching_threads() -> Iterator[None]:
    """The same for the threads of loggers and progress bars, whose end Python reports with a traceback."""
    previous = threading.excepthook
    threading.excepthook = lambda ended: tell("a thread beside training", ended.exc_value)
    try:
        yield
    finally:
        threading.excepthook = previous


def tell(kind: str, error: BaseException | None) -> None:
    """Warn that `kind` failed, once."""
    if kind not in _told:
        _told.add(kind)  # before the warning: what shows warnings may be what fails
        text = " ".join(str(error).split())
        log.warning("%s failed: %s: %s; training goes on without it", kind, type(error).__name__, text)


def forget() -> None:
    """A run begins: what fails in it is told anew."""
    _told.clear()
