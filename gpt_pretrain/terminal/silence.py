"""Long work where there is no bar: a line from time to time, so that nobody wonders whether it goes on."""

import sys
import time
from collections.abc import Callable

from gpt_pretrain.terminal.text import show

SECONDS = 30.0  # nobody waits longer for a line


class Silence:
    """Broken on standard error, unless that is a terminal, which has a bar."""

    def __init__(self) -> None:
        self.since = time.monotonic()

    def end(self, words: Callable[[], str]) -> None:
        """Say `words` if nothing was said for `SECONDS`. To be called often: it costs next to nothing."""
        if time.monotonic() - self.since >= SECONDS:
            self.since = time.monotonic()
            if not sys.stderr.isatty():
                show(words(), file=sys.stderr, flush=True)
