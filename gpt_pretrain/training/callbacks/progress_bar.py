"""A progress bar on a terminal, and one line an evaluation wherever the output goes."""

import logging
from typing import Any

import lightning as L
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gpt_pretrain.terminal.logs import one_line
from gpt_pretrain.terminal.watching import watching
from gpt_pretrain.training.callbacks.metrics import Metrics
from gpt_pretrain.training.callbacks.rhythm import step_ended
from gpt_pretrain.training.plan import Plan

log = logging.getLogger(__name__)

KIND = "the progress bar"
SHOWN = {
    "train/loss": "loss {:.3f}",
    "train/eval_loss": "without dropout {:.3f}",
    "val/loss": "val loss {:.3f}",
    "tokens_per_sec": "{:,.0f} tokens/s",
}


class ProgressBar(L.Callback):
    """Shows what was measured last; it measures nothing itself, so it never waits for a device."""

    def __init__(self, plan: Plan, metrics: Metrics) -> None:
        self.plan, self.metrics = plan, metrics
        self.progress = Progress(
            MofNCompleteColumn(table_column=one_line()),
            TextColumn("{task.fields[measured]}", table_column=one_line()),
            TimeRemainingColumn(table_column=one_line()),
            BarColumn(bar_width=None, table_column=one_line(ratio=1)),
            expand=True,
            console=get_console(),
            disable=not get_console().is_terminal,
            transient=True,
        )
        self.task = self.progress.add_task("", total=plan.steps, measured="")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            with watching(KIND):
                self.progress.start()
                self.progress.update(self.task, completed=trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero and step_ended(self.plan, batch_idx):
            with watching(KIND):
                self.progress.update(self.task, completed=trainer.global_step, measured=self._measured())

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            with watching(KIND):
                log.info(
                    "step %*d/%d  %s",
                    len(str(self.plan.steps)),
                    trainer.global_step,
                    self.plan.steps,
                    self._measured(),
                )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._end()

    def _end(self) -> None:
        with watching(KIND):
            self.progress.stop()

    def _measured(self) -> str:
        newest = self.metrics.newest
        return "  ".join(word.format(newest[key]) for key, word in SHOWN.items() if key in newest)
