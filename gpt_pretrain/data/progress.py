"""How far reading a source has come: bytes of its files, MB/s, time left."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from gpt_pretrain.data.sources import Source

QUIET_SECONDS = 0.5  # short work shows no bar


class Progress:
    def __init__(self, what: str, source: Source) -> None:
        self.what, self.source = what, source
        self.n_bytes, self.started = 0, time.monotonic()
        self._bar: Bar | None = None
        self._task: Any = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, n_bytes: int) -> None:
        self.n_bytes += n_bytes
        elapsed = time.monotonic() - self.started
        if self._bar is None and elapsed > QUIET_SECONDS:
            self._show()
        if self._bar is not None:
            rate = f"{self.n_bytes / elapsed / 1e6:.1f} MB/s"
            self._bar.update(self._task, completed=self.n_bytes, rate=rate)

    def _show(self) -> None:
        files = "1 file" if self.source.n_files == 1 else f"{self.source.n_files:,} files"
        total = self.source.n_bytes or None
        size = f" of {total / 1e6:,.0f} MB" if total else ""
        columns = (
            TextColumn(f"{self.what} {files}{size}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
        )
        rest = (TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
        self._bar = Bar(*columns, *rest, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self.what, total=total, rate="")
        self._bar.start()
