"""What a run measures, handed to every logger: one row a logged step, evaluation included."""

from time import perf_counter
from typing import Any

import lightning as L
import torch

from gpt_pretrain.training.callbacks.rhythm import evaluates, is_due, is_last, step_ended
from gpt_pretrain.training.loggers import TensorBoard
from gpt_pretrain.training.metrics_csv import MetricsCSV
from gpt_pretrain.training.module import GPTModule
from gpt_pretrain.training.plan import Plan

# Dense bfloat16 FLOP/s by the manufacturers' data sheets, without sparsity. The first entry that is a part of
# the GPU's name counts, so the longer names come first.
PEAK_FLOPS = {
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "4090": 165e12,
}


class Metrics(L.Callback):
    """Training loss every `log_every` steps and at each evaluation, checkpoint and sample; throughput counts
    training time only.
    """

    def __init__(self, plan: Plan, log_every: int) -> None:
        self.plan, self.log_every = plan, log_every
        self.best_val_loss: float | None = None
        self.newest: dict[str, float] = {}
        self._started: float | None = None
        self._tokens = 0
        self._pending: dict[str, float] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # TensorBoard drops what a resumed run writes anew, and with it whatever counts in larger numbers.
        for logger in trainer.loggers:
            for row in logger.rows if isinstance(logger, MetricsCSV) else []:
                if row["step"] > 0:
                    self._write_by_tokens(trainer, row)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._started is None:
            self._started, self._tokens = perf_counter(), 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, GPTModule)
        self._tokens += self.plan.batch_tokens
        if not step_ended(self.plan, batch_idx):
            return
        evaluating = evaluates(trainer, self.plan)
        # At a checkpoint too: a resumed run must not average over steps that it has not seen. And before a
        # sample, whose time is not training's.
        rhythms = (self.log_every, self.plan.checkpoint_every, self.plan.sample_every)
        due = any(is_due(trainer.global_step, every) for every in rhythms)
        if not (due or evaluating or is_last(trainer, self.plan) or trainer.global_step == 1):
            return
        measured = pl_module.report()
        self._pending = {key: measured[key] for key in ("train/loss", "train/perplexity", "lr", "grad_norm")}
        self._pending |= self._throughput(pl_module)
        if not evaluating:
            self._write(trainer, self._pending)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, GPTModule)
        measured = {
            key: value for key, value in pl_module.metrics.items() if key.startswith(("val/", "train/eval"))
        }
        loss = measured["val/loss"]
        if not trainer.sanity_checking:
            self.best_val_loss = loss if self.best_val_loss is None else min(loss, self.best_val_loss)
        self._write(trainer, self._pending | measured)
        self._pending = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best_val_loss": self.best_val_loss, "newest": self.newest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_val_loss = state_dict["best_val_loss"]
        self.newest = state_dict["newest"]

    def _throughput(self, module: GPTModule) -> dict[str, float]:
        assert self._started is not None
        seconds = perf_counter() - self._started
        tokens_per_sec = self._tokens / seconds
        self._started = None
        rates = {"tokens_per_sec": tokens_per_sec}
        peak = peak_flops(torch.cuda.get_device_name(module.device)) if module.device.type == "cuda" else None
        if peak is not None:
            rates["mfu"] = tokens_per_sec * module.model.flops_per_token() / (peak * self.plan.world_size)
        module.metrics |= rates
        return rates

    def _write(self, trainer: L.Trainer, values: dict[str, float]) -> None:
        step = trainer.global_step
        tokens_seen = step * self.plan.tokens_per_step
        row = {"tokens_seen": tokens_seen, "epoch": step / self.plan.steps_per_epoch} | values
        self.newest |= row
        for logger in trainer.loggers:
            logger.log_metrics(row, step)
        self._write_by_tokens(trainer, row)

    def _write_by_tokens(self, trainer: L.Trainer, row: dict[str, float]) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard) and trainer.is_global_zero:
                logger.log_by_tokens(row)


def peak_flops(gpu: str) -> float | None:
    """FLOP/s of a GPU by its name, as CUDA has it; None where it is not in the table."""
    return next((peak for part, peak in PEAK_FLOPS.items() if part in gpu), None)
