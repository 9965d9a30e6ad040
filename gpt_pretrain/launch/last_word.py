"""A line that stays the last one, though the program that started this one still has something to print."""

import os
import subprocess
import sys

# Its parent is the launcher's worker; it ends with the launcher, or after a minute.
_WAITS = """
import os, sys, time
until = time.monotonic() + 60
while time.monotonic() < until:
    try:
        os.kill(int(sys.argv[1]), 0)
    except OSError:
        break
    time.sleep(0.02)
sys.stderr.write(sys.argv[2] + "\\n")
"""


def say_last(line: str) -> None:
    """Print `line` to standard error once the parent of this process has ended, whatever ends this one."""
    command = [sys.executable, "-I", "-S", "-c", _WAITS, str(os.getppid()), line]
    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
