"""Where log messages go: above a progress bar instead of through it, and into the log of a run."""

import logging

from rich import get_console


class ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        get_console().print(self.format(record), markup=False, highlight=False, soft_wrap=True)


class RunLog(logging.FileHandler):
    """A run's log, not opened before the run came about: what was said until then is held back."""

    def __init__(self, filename: str) -> None:
        super().__init__(filename, delay=True, encoding="utf-8")
        self.held: list[logging.LogRecord] | None = []

    def begin(self) -> None:
        held, self.held = self.held or [], None
        for record in held:
            self.emit(record)

    def emit(self, record: logging.LogRecord) -> None:
        if self.held is None:
            super().emit(record)
        else:
            self.held.append(record)
