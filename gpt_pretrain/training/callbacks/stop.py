"""Ending a run in good order: at its last step, and when a signal asks for it."""

import signal
from time import perf_counter
from types import FrameType
from typing import Any

import lightning as L
import torch

from gpt_pretrain.errors import StoppedError
from gpt_pretrain.training.callbacks.rhythm import step_ended
from gpt_pretrain.training.plan import Plan


class Stop(L.Callback):
    """First of all callbacks: the others are handed it, and ask whether this step is the last.

    Setting `should_stop` makes Lightning evaluate once more, whatever the rhythm, so a run ends with a
    validation loss. After a signal there is no time for that: the run saves and ends. The handler only
    sets a flag; where several ranks train, they agree on it every `agree_every` steps. A second Ctrl-C ends
    the run where it is, say in a long validation.
    """

    agree_every = 10

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.signal_number: int | None = None
        self.given_up: str | None = None  # the exit reason, where a sweep has ended this trial early
        self.interrupted = False  # by a signal: what is left to do is to save, and soon
        self._remembered = 0.0
        self._previous: dict[int, Any] = {}

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen()  # a resumed run has no sanity check
        self._await_evaluation(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not step_ended(self.plan, batch_idx):
            return
        self._await_evaluation(trainer)
        if self._stop_requested(trainer, pl_module):
            self.interrupted = trainer.should_stop = True
            trainer.limit_val_batches = 0  # else Lightning evaluates before it ends
        elif self.ends(trainer):
            trainer.should_stop = True

    def ends(self, trainer: L.Trainer) -> bool:
        """True where the run ends with the step just taken."""
        return trainer.should_stop or trainer.global_step >= self.plan.steps

    def evaluates(self, trainer: L.Trainer) -> bool:
        """True where validation follows the step just taken: on its beat, and when the run ends here."""
        step = trainer.global_step
        due = step == self.plan.next_evaluation(step) or self.ends(trainer)
        return due and not self.interrupted

    def _await_evaluation(self, trainer: L.Trainer) -> None:
        """Lightning evaluates after batches that this number divides: with a beat of another first step, the
        next one due.
        """
        if self.plan.eval_first is not None:
            trainer.val_check_batch = self.plan.next_evaluation(trainer.global_step) * self.plan.accumulate

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _listen(self) -> None:
        """Take the signals over; in an earlier hook Lightning's own handler would replace this one."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if number not in self._previous:
                self._previous[number] = signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # A launcher passes on the Ctrl-C that its ranks got themselves: a user is slower.
        if (
            number == signal.SIGINT
            and perf_counter() - self._remembered > 2
            and self.signal_number is not None
        ):
            raise StoppedError(number, "interrupted again, so nothing more was saved")
        self.signal_number, self._remembered = number, perf_counter()

    def _stop_requested(self, trainer: L.Trainer, pl_module: L.LightningModule) -> bool:
        if trainer.world_size == 1:
            return self.signal_number is not None
        if trainer.global_step % self.agree_every:
            return False
        mine = torch.tensor(self.signal_number or 0, device=pl_module.device)
        self.signal_number = int(trainer.strategy.reduce(mine, reduce_op="max")) or None
        return self.signal_number is not None
