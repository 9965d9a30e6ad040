"""trainer.profile=true: a trace of a few steps, and the operations that took most of their time."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
from torch.profiler import ProfilerActivity, profile

from gpt_pretrain.terminal.watching import watching
from gpt_pretrain.training.callbacks.rhythm import step_ended
from gpt_pretrain.training.plan import Plan

log = logging.getLogger(__name__)

WARM_UP, TRACED, SHOWN = 2, 5, 10  # steps, steps, operations
KIND = "the profile"


class Profile(L.Callback):
    """Traces `TRACED` steps after `WARM_UP`, or those that the run has, into `run`/*.pt.trace.json."""

    def __init__(self, run: Path, plan: Plan) -> None:
        self.run, self.plan = run, plan
        self.profiler: Any = None
        self.first = 0  # the step before the first that is traced

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        left = self.plan.steps - trainer.global_step
        self.first = trainer.global_step + min(WARM_UP, max(0, left - TRACED))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        begins = trainer.global_step == self.first and batch_idx % self.plan.accumulate == 0
        if begins and trainer.is_global_zero:
            with watching(KIND):
                kinds = [ProfilerActivity.CPU]
                if pl_module.device.type == "cuda":
                    kinds.append(ProfilerActivity.CUDA)
                self.profiler = profile(activities=kinds)
                self.profiler.__enter__()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last = min(self.first + TRACED, self.plan.steps)
        if self.profiler is not None and step_ended(self.plan, batch_idx) and trainer.global_step >= last:
            with watching(KIND):
                self._finish(trainer.global_step - self.first, on_gpu=pl_module.device.type == "cuda")

    def _finish(self, n_steps: int, *, on_gpu: bool) -> None:
        profiler, self.profiler = self.profiler, None
        profiler.__exit__(None, None, None)
        file = self.run / f"step-{self.first + 1}.pt.trace.json"
        profiler.export_chrome_trace(str(file))
        key = "self_device_time_total" if on_gpu else "self_cpu_time_total"  # microseconds
        operations = sorted(profiler.key_averages(), key=lambda op: getattr(op, key), reverse=True)
        total = sum(getattr(op, key) for op in operations) or 1
        log.info("the %d costliest operations of %d steps:", min(SHOWN, len(operations)), n_steps)
        log.info("%10s %7s %8s  %s", "ms a step", "share", "calls", "operation")
        for op in operations[:SHOWN]:
            spent = getattr(op, key)
            milliseconds, share = spent / 1000 / n_steps, 100 * spent / total
            log.info("%10.3f %6.1f%% %8.0f  %s", milliseconds, share, op.count / n_steps, op.key)
        log.info("trace   %s: opens in chrome://tracing, ui.perfetto.dev and TensorBoard's profiler", file)
