"""Standard streams that cannot end a program. Imports nothing heavy, since every program begins here."""

import io
import os
import select
import sys
from typing import IO, Any

lost: dict[str, OSError] = {}  # standard streams that lead nowhere now, and why


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


def outlives_reader() -> bool:
    """True where standard output cannot fail, so that a broken pipe is another one's."""
    return isinstance(sys.stdout, io.TextIOWrapper) and isinstance(_raw(sys.stdout), _Steady)


class _Steady(io.FileIO):
    """A standard stream whose reader may leave, whose disk may be full, whose terminal may hang up."""

    stream: io.TextIOWrapper  # whose descriptor it writes to: collected, it would close that

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
            lost[f"standard {'output' if self.fileno() == 1 else 'error'}"] = error
            _lead_nowhere(self.fileno())
        return memoryview(data).nbytes


def _steady(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    raw = _raw(stream)
    if type(raw) is not io.FileIO:  # a test's or a notebook's, or steady already
        return stream
    stream.flush()
    steady = _Steady(raw.fileno(), "w", closefd=False)
    steady.stream = stream
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
    """A stream in a closed one's place, whose number the next file, and what others print, would get."""
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
