"""What a run measures, handed to every logger: one row a logged step, evaluation included."""

import dataclasses
import warnings
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.throughput import get_available_flops

from gpt_pretrain.training.callbacks.parts import Parts
from gpt_pretrain.training.callbacks.rhythm import is_due, step_ended
from gpt_pretrain.training.callbacks.stop import Stop
from gpt_pretrain.training.layers import Layers
from gpt_pretrain.training.loggers import TensorBoard
from gpt_pretrain.training.memory import memory_mb
from gpt_pretrain.training.metrics_csv import MetricsCSV
from gpt_pretrain.training.module import GPTModule
from gpt_pretrain.training.plan import Plan
from gpt_pretrain.training.shards import is_sharded

# Dense bfloat16 FLOP/s where Lightning's table lacks a GPU, takes it for another (an L40 for an L4), or has
# its figure with sparsity. The first entry that is a part of the name counts, so the longer names come first.
PEAK_FLOPS = {
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "L40S": 362e12,
    "L40": 181e12,
    "4090": 165e12,
}


@dataclass(slots=True)
class Spent:
    """Time and tokens of a run or a part of it."""

    seconds: float = 0.0  # by the clock
    training_seconds: float = 0.0  # of these, in training steps
    tokens: int = 0

    @property
    def tokens_per_sec(self) -> float | None:
        return self.tokens / self.training_seconds if self.training_seconds else None


@dataclass(slots=True)
class Clock:
    """What a run has taken. One for all that a process trains of it, also where it goes back."""

    earlier: Spent = field(default_factory=Spent)  # by the parts of the run before this one
    spent: Spent = field(default_factory=Spent)  # by this one
    began: float = field(default_factory=perf_counter)
    went_back: bool = False  # to a state of its own, which knows less than it does


class Metrics(L.Callback):
    """Owns what was measured: losses every `log_every` steps and at each evaluation, checkpoint and sample.

    Throughput counts training time only, that of the user's own callbacks at a step included.
    """

    def __init__(
        self,
        plan: Plan,
        stop: Stop,
        log_every: int,
        parts: Parts,
        layers: Layers | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.plan, self.stop, self.parts, self.layers = plan, stop, parts, layers
        self.clock = clock or Clock()
        # At a checkpoint too: a resumed run must not average over steps that it has not seen. And before a
        # sample, whose time is not training's.
        self.rhythms = (log_every, plan.checkpoint_every, plan.sample_every)
        self.best_val_loss: float | None = None
        self.first_val_loss: float | None = None
        self.newest: dict[str, float] = {}
        self._started: float | None = None
        self._tokens = 0
        self._pending: dict[str, float] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, GPTModule)
        pl_module.measured_elsewhere = True

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, GPTModule)
        if self.layers is not None and (trainer.is_global_zero or is_sharded(pl_module.model)):
            pl_module.gradients_ready = self._gradients_ready
        earlier = [row for logger in trainer.loggers if isinstance(logger, MetricsCSV) for row in logger.rows]
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard):
                logger.restore(earlier)  # it drops what a resumed run writes anew, and more

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
        evaluating = self.stop.evaluates(trainer)
        unfinished = any(self.stop.unfinished.values())
        if not (self._is_due(trainer.global_step) or evaluating or unfinished or self.stop.ends(trainer)):
            return
        self._pending = pl_module.report() | self._throughput(pl_module) | self.parts.report()
        if self.layers is not None:
            self._pending |= self.layers.report(pl_module.model)
        self.newest |= self._pending
        if not evaluating and not unfinished:  # a row is one step's, with all that was due at it
            self.write_pending(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, GPTModule)
        if self.stop.interrupted:
            return
        measured = pl_module.validated
        loss = measured["val/loss"]
        self.first_val_loss = loss if self.first_val_loss is None else self.first_val_loss
        if not trainer.sanity_checking:
            self.best_val_loss = loss if self.best_val_loss is None else min(loss, self.best_val_loss)
        self._pending |= measured
        self.write_pending(trainer)

    def write_pending(self, trainer: L.Trainer) -> None:
        """The row of this step: what was measured since the last one."""
        self._write(trainer, self._pending)
        self._pending = {}

    def state_dict(self) -> dict[str, Any]:
        losses = {"best_val_loss": self.best_val_loss, "first_val_loss": self.first_val_loss}
        spent = dataclasses.asdict(self.total())
        evaluated = {"eval_batches": self.plan.eval_batches}
        return losses | evaluated | {"newest": self.newest, "pending": self._pending, "spent": spent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.plan.measures_as(state_dict):
            self.best_val_loss = state_dict["best_val_loss"]
            self.first_val_loss = state_dict.get("first_val_loss")  # an earlier version kept neither
        self.newest = state_dict["newest"]
        self._pending = state_dict.get("pending", {})
        if not self.clock.went_back:
            self.clock.earlier = Spent(**state_dict.get("spent", {}))

    def session(self) -> "Spent":
        """What this part of the run has taken so far, the steps since the last row included."""
        now, spent = perf_counter(), self.clock.spent
        return Spent(
            seconds=now - self.clock.began,
            training_seconds=spent.training_seconds + (now - self._started if self._started else 0),
            tokens=spent.tokens + self._tokens,
        )

    def total(self) -> "Spent":
        """What the run has taken, the parts before it was resumed included."""
        now, before = self.session(), self.clock.earlier
        return Spent(
            seconds=before.seconds + now.seconds,
            training_seconds=before.training_seconds + now.training_seconds,
            tokens=before.tokens + now.tokens,
        )

    def _is_due(self, step: int) -> bool:
        return step == 1 or any(is_due(step, every) for every in self.rhythms)

    def _gradients_ready(self, module: GPTModule) -> None:
        """Before the optimizer's step: what the layers were like, where they will be asked for."""
        step = module.trainer.global_step + 1
        ends = step >= self.plan.steps or step == self.plan.next_evaluation(step)
        if self.layers is not None and (ends or self._is_due(step)):
            self.layers.step_begins(module.model)

    def _throughput(self, module: GPTModule) -> dict[str, float]:
        assert self._started is not None
        seconds = perf_counter() - self._started
        tokens_per_sec = self._tokens / seconds
        self.clock.spent.training_seconds += seconds
        self.clock.spent.tokens += self._tokens
        self._started, self._tokens = None, 0
        rates = {"tokens_per_sec": tokens_per_sec}
        if (memory := memory_mb(module.device)) is not None:
            rates["memory_mb"] = memory
        peak = peak_flops(module.device)
        if peak is not None:
            rates["mfu"] = tokens_per_sec * module.model.flops_per_token() / (peak * self.plan.world_size)
        return rates

    def _write(self, trainer: L.Trainer, values: dict[str, float]) -> None:
        step = trainer.global_step
        tokens_seen = step * self.plan.tokens_per_step
        row = {
            "tokens_seen": tokens_seen,
            "epoch": step / self.plan.steps_per_epoch,
            "seconds": round(self.total().seconds, 3),
        } | values
        self.newest |= row
        for logger in trainer.loggers:
            logger.log_metrics(row, step)


def peak_flops(device: torch.device) -> float | None:
    """Dense bfloat16 FLOP/s of a GPU, float16 where it has no bfloat16; None where nobody says."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    for part, peak in PEAK_FLOPS.items():
        if part in name:
            return peak
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a GPU that is not in the table
        return get_available_flops(device, torch.bfloat16) or get_available_flops(device, torch.float16)
