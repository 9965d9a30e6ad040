"""How far a run is: a bar on a terminal, and lines wherever the output goes."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import lightning as L
from rich import get_console
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table

from gpt_pretrain.terminal.logs import one_line
from gpt_pretrain.terminal.watching import watching
from gpt_pretrain.training.callbacks.metrics import Metrics
from gpt_pretrain.training.callbacks.rhythm import step_ended
from gpt_pretrain.training.callbacks.stop import Stop
from gpt_pretrain.training.plan import Plan

log = logging.getLogger(__name__)

KIND = "the progress bar"
SHOWN = {
    "train/loss": "loss {:.3f}",
    "train/eval_loss": "without dropout {:.3f}",
    "val/loss": "val loss {:.3f}",
    "tokens_per_sec": "{:,.0f} tokens/s",
}
EVALUATED = ("train/eval_loss", "val/loss")  # of an earlier step, while this one's evaluation goes on
SILENT_SECONDS = 30.0  # where there is no bar, nobody waits longer for a line
NARROWEST_BAR = 5


class ProgressBar(L.Callback):
    """Shows what was measured last; it measures nothing itself, so it never waits for a device."""

    def __init__(self, plan: Plan, stop: Stop, metrics: Metrics) -> None:
        self.plan, self.stop, self.metrics = plan, stop, metrics
        self.step = self.first_step = 0
        self.doing = ""  # instead of training, and how far that is
        self.began = self.said = perf_counter()
        self._live: Live | None = None
        self._ended = threading.Event()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            with watching(KIND):
                self.step = self.first_step = trainer.global_step
                self._begin()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step = self.first_step = trainer.global_step
        self.began = perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if step_ended(self.plan, batch_idx):
            self.step = trainer.global_step

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        n_batches = (trainer.sanity_checking and trainer.num_sanity_val_batches) or trainer.num_val_batches
        self.doing = f"evaluating {batch_idx + 1:,}/{n_batches[dataloader_idx]:,}"

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.doing = ""
        if trainer.is_global_zero and not self.stop.interrupted:
            with watching(KIND):
                self.step = trainer.global_step
                self._say()

    @contextmanager
    def during(self, doing: str) -> Iterator[None]:
        """While the body runs, the bar says what is done."""
        self.doing = doing
        try:
            yield
        finally:
            self.doing = ""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._end()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.line(options.max_width)

    def line(self, width: int) -> Table:
        """One line of `width` columns: what has no room is left out, the least important first."""
        gap = 2 if width >= 60 else 1
        total = self.plan.steps
        counted = f"{self.step:{len(str(total))}}/{total}"
        newest = self.metrics.newest
        loss = f"loss {newest['train/loss']:.3f}" if "train/loss" in newest else ""
        best = self.metrics.best_val_loss
        best_text = "" if best is None else f"best {best:.3f}" if width < 100 else f"best val loss {best:.3f}"
        speed = f"{newest['tokens_per_sec']:,.0f} tokens/s" if "tokens_per_sec" in newest else ""
        by_place = [self.doing, loss, best_text, speed, self._left()]
        by_weight = (0, 1, 4, 2, 3)  # doing, loss, time left, best, speed
        room, shown = width - len(counted) - gap - NARROWEST_BAR, set()
        for place in by_weight:
            needed = len(by_place[place]) + gap
            if by_place[place] and needed <= room:
                shown.add(place)
                room -= needed
        texts = [by_place[place] for place in sorted(shown)]
        bar_width = width - len(counted) - sum(len(text) + gap for text in texts) - gap
        bar = [Bar(total=total, completed=self.step, width=bar_width)] if bar_width >= NARROWEST_BAR else []
        cells: list[Any] = [counted, *bar, *texts]
        grid = Table.grid(*(one_line() for _ in cells), padding=(0, gap), pad_edge=False)
        grid.add_row(*cells)
        return grid

    def _left(self) -> str:
        done = self.step - self.first_step
        if done <= 0:
            return ""
        seconds = round((perf_counter() - self.began) / done * (self.plan.steps - self.step))
        hours, minutes = seconds // 3600, seconds // 60 % 60
        text = f"{hours}:{minutes:02d}:{seconds % 60:02d}" if hours else f"{minutes}:{seconds % 60:02d}"
        return f"{text} left"

    def _begin(self) -> None:
        console = get_console()
        if console.is_terminal:
            self._live = Live(self, console=console, refresh_per_second=4, transient=True)
            self._live.start()
        else:
            self.said = perf_counter()
            threading.Thread(target=self._break_silence, daemon=True).start()

    def _break_silence(self) -> None:
        while not self._ended.wait(min(1.0, SILENT_SECONDS / 4)):
            if perf_counter() - self.said >= SILENT_SECONDS:
                with watching(KIND):
                    self._say()

    def _say(self) -> None:
        self.said = perf_counter()
        newest = self.metrics.newest
        keys = [key for key in SHOWN if key in newest and not (self.doing and key in EVALUATED)]
        measured = [SHOWN[key].format(newest[key]) for key in keys]
        words = "  ".join([*measured, *filter(None, [self.doing])])
        log.info("step %*d/%d  %s", len(str(self.plan.steps)), self.step, self.plan.steps, words)

    def _end(self) -> None:
        self._ended.set()
        with watching(KIND):
            if self._live is not None:
                self._live.stop()
