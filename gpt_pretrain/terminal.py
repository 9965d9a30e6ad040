"""Log messages through rich's console, so that they pass above a progress bar instead of through it."""

import logging

from rich import get_console


class ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        get_console().print(self.format(record), markup=False, highlight=False, soft_wrap=True)
