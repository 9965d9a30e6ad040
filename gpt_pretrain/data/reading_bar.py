"""How far reading a source has come: files, bytes, MB/s, time left."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from gpt_pretrain.data.sources import Source
from gpt_pretrain.terminal.logs import one_line
from gpt_pretrain.terminal.silence import Silence

QUIET_SECONDS = 0.5  # short work shows no bar


class ReadingBar:
    """Shown from the moment that reading has taken `QUIET_SECONDS`, on a terminal only."""

    def __init__(self, what: str, source: Source) -> None:
        self.what, self.source = what, source
        self.n_bytes, self.started = 0, time.monotonic()
        self.silence = Silence()
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> "ReadingBar":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, n_bytes: int) -> None:
        """`n_bytes` more of the source's files have been read."""
        self.n_bytes += n_bytes
        elapsed = time.monotonic() - self.started
        of = f" of {self.source.n_bytes / 1e6:,.0f}" if self.source.n_bytes else ""
        self.silence.end(
            lambda: f"{self.what}: {self.n_bytes / 1e6:,.0f}{of} MB, {self.n_bytes / elapsed / 1e6:.1f} MB/s"
        )
        if self._bar is None and elapsed > QUIET_SECONDS:
            self._show()
        if self._bar is not None:
            rate = f"{self.n_bytes / elapsed / 1e6:.1f} MB/s"
            files = f"{self.source.files_read + 1:,} of {self.source.n_files:,}"
            self._bar.update(self._task, completed=self.n_bytes, rate=rate, files=files)

    def _show(self) -> None:
        console = Console(stderr=True)
        total = self.source.n_bytes or None
        self._bar = Progress(
            TextColumn(f"{self.what} file {{task.fields[files]}}", table_column=one_line()),
            DownloadColumn(table_column=one_line()),
            TextColumn("{task.fields[rate]}", table_column=one_line()),
            TimeRemainingColumn(table_column=one_line()),
            BarColumn(bar_width=None, table_column=one_line(ratio=1)),
            expand=True,
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(self.what, total=total, rate="", files="")
        self._bar.start()
