"""Where log messages go: onto the terminal and into a run's log, neither of which can end a run."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpt_pretrain.errors import UserFacingError
from gpt_pretrain.terminal.streams import lost
from gpt_pretrain.terminal.text import folded, printable
from gpt_pretrain.terminal.watching import tell, watching

if TYPE_CHECKING:
    from rich.table import Column


class Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


COMMAND = {"is_command": True}  # extra= of a message that is typed again, which a line end would cut in two


class ConsoleHandler(logging.Handler):
    """Through rich's console, so that messages pass above a progress bar instead of through it.

    A terminal's lines end between words.
    """

    def emit(self, record: logging.LogRecord) -> None:
        from rich import get_console

        with watching("the terminal"):
            text, console = self.format(record), get_console()
            if console.is_terminal and not hasattr(record, "is_command"):
                text = folded(text, console.width)
            console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
        for stream, error in list(lost.items()):
            tell(stream, error)


def one_line(ratio: int | None = None) -> "Column":
    """A progress bar's column that a narrow terminal cuts: wrapped, it would leave lines behind."""
    from rich.table import Column

    return Column(no_wrap=True, overflow="crop", ratio=ratio)


@contextmanager
def failure_logged() -> Iterator[None]:
    """Write what ends the body into the run's log alone: the terminal gets it otherwise."""
    try:
        yield
    except Exception as error:
        text = f"error: {error}" if isinstance(error, UserFacingError) else traceback.format_exc()
        record = logging.LogRecord("gpt_pretrain", logging.ERROR, __file__, 0, text, None, None)
        for handler in log_files():
            handler.handle(record)
        raise


class LogFile(logging.FileHandler):
    """A run's log, not opened before the run came about: what was said until then is held back.

    A run can do without it: where it cannot be opened or its disk is full, that is told once.
    """

    def __init__(self, filename: str) -> None:
        super().__init__(filename, encoding="utf-8", errors="backslashreplace", delay=True)
        self.held: list[logging.LogRecord] | None = []

    def begin(self) -> None:
        held, self.held = self.held or [], None
        for record in held:
            self.emit(record)

    def withdraw(self) -> None:
        """The run did not come about after all: nothing is written any more."""
        self.held = []
        self.close()

    def emit(self, record: logging.LogRecord) -> None:
        if self.held is not None:
            self.held.append(record)
            return
        with watching("the log file"):
            super().emit(record)

    def flush(self) -> None:
        with watching("the log file"):
            super().flush()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        raise  # the error at hand, which `emit` waits for


def log_files() -> list[LogFile]:
    """Those of the run at hand."""
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, LogFile)]


@contextmanager
def own_logging() -> Iterator[None]:
    """Hydra's handlers write to this program's streams and folder: afterwards logging is as it was before."""
    root = logging.getLogger()
    before, level, least = list(root.handlers), root.level, root.manager.disable
    try:
        yield
    finally:
        for handler in [handler for handler in root.handlers if handler not in before]:
            root.removeHandler(handler)
            handler.close()
        for handler in before:
            root.addHandler(handler)
        root.setLevel(level)
        logging.disable(least)
        for logger in (root, *root.manager.loggerDict.values()):
            if isinstance(logger, logging.Logger):
                logger.disabled = False  # as Hydra leaves those that it silences
