"""What a command shows on a terminal of some width, as a page for a browser; needs `pip install pyte`.

python -m tests.terminal.capture 80 page.html [--after TEXT] -- python train.py model=tiny

With --after the command is stopped once it has shown TEXT. The README's captures are such pages, photographed
by `chromium --headless --screenshot=docs/terminal-80.png --window-size=700,600 page.html`.
"""

import argparse
import fcntl
import html
import itertools
import os
import pty
import signal
import struct
import subprocess
import termios
from pathlib import Path

import pyte

ROWS = 500  # higher than anything: what would scroll off stays
COLOURS = {"default": "inherit", "brown": "#d0b050", "black": "#808080", "brightblack": "#808080"}
PAGE = """<!DOCTYPE html><meta charset="utf-8"><style>
body { background: #181818; color: #d8d8d8; margin: 12px }
pre { font: 13px/1.35 "DejaVu Sans Mono", monospace; margin: 0 }
</style><pre>"""


def captured(command: list[str], columns: int, after: str | None = None) -> str:
    """What the command has written by its end, or by when `after` stood in it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    written = b""
    while after is None or after.encode() not in written:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # as Linux says that nobody has the terminal open any more
            break
        if not piece:
            break
        written += piece
    if process.poll() is None and after is not None:
        os.killpg(process.pid, signal.SIGKILL)
    os.close(ours)
    process.wait()
    return written.decode(errors="replace")


def as_html(written: str, columns: int) -> str:
    """The lines of the terminal, scrolled-off ones included."""
    screen = pyte.Screen(columns, ROWS)
    pyte.Stream(screen).feed(written)
    lines = []
    for row in range(max(screen.buffer, default=-1) + 1):
        cells = [screen.buffer[row][column] for column in range(columns)]
        runs = itertools.groupby(cells, key=lambda cell: (cell.fg, cell.bold))
        lines.append("".join(_span(*style, "".join(cell.data for cell in run)) for style, run in runs))
    return PAGE + "\n".join(lines).rstrip() + "</pre>\n"


def _span(colour: str, bold: bool, text: str) -> str:
    shown = COLOURS.get(colour, f"#{colour}" if len(colour) == 6 else colour)
    weight = "bold" if bold else "normal"
    return f'<span style="color: {shown}; font-weight: {weight}">{html.escape(text)}</span>'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("columns", type=int)
    parser.add_argument("page", type=Path)
    parser.add_argument("--after", help="stop the command once it has shown this")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    written = captured(given.command, given.columns, given.after)
    given.page.write_text(as_html(written, given.columns), encoding="utf-8")


if __name__ == "__main__":
    main()
