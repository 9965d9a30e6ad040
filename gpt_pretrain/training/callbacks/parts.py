"""How long each part of a step takes: waiting for the batch, forward, backward, optimizer."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import lightning as L
import torch

from gpt_pretrain.training.plan import Plan

Instant = Any  # seconds by the clock, or a CUDA event
KEPT = 64  # micro-steps whose CUDA events are kept: those before are past, so reading them waits for nothing


@dataclass(slots=True)
class Spans:
    """The times of one part since the last report."""

    n: int = 0
    milliseconds: float = 0.0  # of all but the newest
    newest: deque[tuple[Instant, Instant]] = field(default_factory=deque)

    def add(self, begin: Instant, end: Instant) -> None:
        self.n += 1
        self.newest.append((begin, end))
        if len(self.newest) > KEPT:
            self.milliseconds += _milliseconds(*self.newest.popleft())

    def mean(self) -> float:
        return (self.milliseconds + sum(_milliseconds(*span) for span in self.newest)) / self.n


class Parts(L.Callback):
    """Takes the time between Lightning's hooks. On a GPU by events in its stream: nothing waits for it.

    Comes last of all callbacks: what they do is no part of a step.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.now: Callable[[], Instant] = perf_counter
        self.spans: dict[str, Spans] = {}
        self._began: Instant = None
        self._ended: float | None = None  # the step before, by the clock: a batch is waited for on the CPU

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.now = _event if pl_module.device.type == "cuda" else perf_counter

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._ended = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._ended is not None:
            self._keep("data", self._ended, perf_counter())
        self._began = self.now()

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Any) -> None:
        self._end("forward")

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end("backward")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._ended = perf_counter()

    def step_ended(self) -> None:
        """The optimizer's step is behind: called before any other callback does its work."""
        if self._began is not None:
            self._end("optimizer")
            self._began = None

    def report(self) -> dict[str, float]:
        """Milliseconds an optimizer step, by part, of the steps since the last report.

        To be called where the device has been waited for anyway.
        """
        told = {f"ms/{part}": self.plan.accumulate * spans.mean() for part, spans in self.spans.items()}
        self.spans.clear()
        return told

    def _end(self, part: str) -> None:
        now = self.now()
        self._keep(part, self._began, now)
        self._began = now

    def _keep(self, part: str, begin: Instant, end: Instant) -> None:
        self.spans.setdefault(part, Spans()).add(begin, end)


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _milliseconds(begin: Instant, end: Instant) -> float:
    if isinstance(begin, float):
        return 1000 * (end - begin)
    end.synchronize()  # it is past: the losses were read before
    return float(begin.elapsed_time(end))
