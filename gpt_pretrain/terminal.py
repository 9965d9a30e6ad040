"""Standard streams that cannot end a program, and text that cannot command a terminal.

Text that a model wrote, or that came from a file, is foreign: it is shown through `show` and logged through
`Formatter`. Imports nothing heavy, since every program begins here.
"""

import io
import logging
import os
import select
import sys
import unicodedata
from typing import IO, TYPE_CHECKING, Any, TextIO

from gpt_pretrain.watching import tell, watching

if TYPE_CHECKING:
    from rich.table import Column

# Format characters that are part of how languages are written: joiners, and signs that enclose numbers.
_WRITTEN = {0x200C, 0x200D, *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}

_lost: dict[str, OSError] = {}  # standard streams that lead nowhere now, and why


class _Shown(dict[int, str]):
    """For str.translate: control and format characters, line separators and lone surrogates as escapes."""

    def __missing__(self, code: int) -> str:
        shown = character = chr(code)
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and code not in _WRITTEN:
            shown = character.encode("unicode_escape").decode()
        self[code] = shown
        return shown


_SHOWN = _Shown({ord("\n"): "\n", ord("\t"): "\t"})


def printable(text: str) -> str:
    r"""Foreign text, safe to show: \x1b and all else that a terminal would obey as visible escapes.

    Line ends and tabs stay.
    """
    return text.translate(_SHOWN)


def show(text: object = "", *, end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
    """`print` for text that may be foreign, as is most of what a program of language models prints."""
    print(printable(str(text)), end=end, file=file, flush=flush)


class Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class ConsoleHandler(logging.Handler):
    """Through rich's console, so that messages pass above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        from rich import get_console

        with watching("the terminal"):
            text = self.format(record)
            get_console().print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
        for stream, error in list(_lost.items()):
            tell(stream, error)


def one_line(ratio: int | None = None) -> "Column":
    """A progress bar's column that a narrow terminal cuts: wrapped, it would leave lines behind."""
    from rich.table import Column

    return Column(no_wrap=True, overflow="crop", ratio=ratio)


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


def settle_streams(*, outlive_reader: bool) -> None:
    """Once, before anything is printed: no encoding and no closed stream ends the program.

    Neither does a reader of its notes that leaves, nor, with `outlive_reader`, one of standard output.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, _nowhere(fd))
        elif isinstance(stream, io.TextIOWrapper) and name != "stdin":
            stream.reconfigure(errors="backslashreplace")
            if name == "stderr" or outlive_reader:
                setattr(sys, name, _steady(stream))
    if logging.lastResort is not None:  # where no handler is set up
        logging.lastResort.setFormatter(Formatter())


def outlives_reader() -> bool:
    """True where standard output cannot fail, so that a broken pipe is another one's."""
    return isinstance(sys.stdout, io.TextIOWrapper) and isinstance(_raw(sys.stdout), _Steady)


class _Steady(io.FileIO):
    """A standard stream whose reader may leave, whose disk may be full, whose terminal may hang up."""

    def write(self, data: Any) -> int:
        """All of it: unbuffered, there is nobody above who would write the rest."""
        rest = memoryview(data).cast("B")
        try:
            while rest:
                written = super().write(rest)
                if written is None:  # another program has set the terminal to non-blocking
                    select.select([], [self], [])
                rest = rest[written or 0 :]
        except OSError as error:
            _lost[f"standard {'output' if self.fileno() == 1 else 'error'}"] = error
            _lead_nowhere(self.fileno())
        return memoryview(data).nbytes


def _steady(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    raw = _raw(stream)
    if type(raw) is not io.FileIO:  # a test's or a notebook's, or steady already
        return stream
    stream.flush()
    steady = _Steady(raw.fileno(), "w", closefd=False)
    unbuffered = raw is stream.buffer  # python -u
    return io.TextIOWrapper(
        steady if unbuffered else io.BufferedWriter(steady),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=unbuffered,
    )


def _raw(stream: io.TextIOWrapper) -> Any:
    return getattr(stream.buffer, "raw", stream.buffer)


def _nowhere(fd: int) -> IO[str]:
    """A stream in the place of a closed one; the next file opened would get its number, and what C code
    and other programs print.
    """
    mode = "w" if fd else "r"
    try:
        os.fstat(fd)
    except OSError:
        _lead_nowhere(fd)
        return open(fd, mode, encoding="utf-8", errors="backslashreplace", closefd=False)
    return open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")


def _lead_nowhere(fd: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != fd:
        os.dup2(nowhere, fd)
        os.close(nowhere)
    os.set_inheritable(fd, True)
