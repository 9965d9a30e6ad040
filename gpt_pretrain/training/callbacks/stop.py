"""Ending a run in good order: at its last step, and when a signal asks for it."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch

from gpt_pretrain.launch.signals import Interrupted, listen, received
from gpt_pretrain.training.callbacks.rhythm import is_due, step_ended
from gpt_pretrain.training.module import GPTModule
from gpt_pretrain.training.plan import Plan


class Stop(L.Callback):
    """First of all callbacks: the others are handed it, and ask whether this step is the last.

    Setting `should_stop` makes Lightning evaluate once more, whatever the rhythm, so a run ends with a
    validation loss. After a signal there is no time for that: the run saves and ends, and what was due at
    that step is made up for when it goes on. Several ranks agree on a signal in every step, and in every
    batch of an evaluation, which ends there.
    """

    def __init__(self, plan: Plan, batch_ended: Callable[[], None] = lambda: None) -> None:
        self.plan = plan
        self.batch_ended = batch_ended  # told so before any callback does its work
        self.signal_number: int | None = None
        self.given_up: str | None = None  # the exit reason, where a sweep has ended this trial early
        self.interrupted = False  # by a signal: what is left to do is to save, and soon
        self.started = False
        self.unfinished: dict[str, bool] = {}  # what was due at the step of an interruption, and was not done

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        listen()  # over Lightning's own handler, which it has just installed

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        listen()  # a resumed run has no sanity check
        self.started = True
        self._await_evaluation(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batch_ended()
        if not step_ended(self.plan, batch_idx):
            return
        self._await_evaluation(trainer)
        assert isinstance(pl_module, GPTModule)
        if number := pl_module.signal_number if trainer.world_size > 1 else received():
            self._interrupt(trainer, number)
            trainer.limit_val_batches = 0  # else Lightning evaluates before it ends
        elif self.ends(trainer):
            trainer.should_stop = True

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, *rest: int
    ) -> None:
        number = received() or 0
        if trainer.world_size > 1:
            mine = torch.tensor(number, device=pl_module.device)
            number = int(trainer.strategy.reduce(mine, reduce_op="max"))
        if number:
            self._interrupt(trainer, number)
            raise StopIteration  # ends Lightning's loop over the batches

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.interrupted and (trainer.sanity_checking or not trainer.global_step):
            assert self.signal_number is not None
            raise Interrupted(self.signal_number)  # before the first step: there is nothing to save
        assert isinstance(pl_module, GPTModule)
        pl_module.evaluation_cut = self.interrupted

    def ends(self, trainer: L.Trainer) -> bool:
        """True where the run ends with the step just taken, of its own accord."""
        return (trainer.should_stop or trainer.global_step >= self.plan.steps) and not self.interrupted

    def evaluates(self, trainer: L.Trainer) -> bool:
        """True where validation follows the step just taken: on its beat, and when the run ends here."""
        return self._evaluation_due(trainer) and not self.interrupted

    def samples(self, trainer: L.Trainer) -> bool:
        every = self.plan.sample_every
        if every is None:
            return self._evaluation_due(trainer)
        return is_due(trainer.global_step, every) or self._is_last(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"unfinished": self.unfinished}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.unfinished = dict(state_dict["unfinished"])

    def _interrupt(self, trainer: L.Trainer, number: int) -> None:
        self.unfinished = {"evaluation": self._evaluation_due(trainer), "sample": self.samples(trainer)}
        self.signal_number = number
        self.interrupted = trainer.should_stop = True

    def _evaluation_due(self, trainer: L.Trainer) -> bool:
        step = trainer.global_step
        return step == self.plan.next_evaluation(step) or self._is_last(trainer)

    def _is_last(self, trainer: L.Trainer) -> bool:
        by_itself = trainer.should_stop and not self.interrupted  # a callback's wish
        return by_itself or trainer.global_step >= self.plan.steps

    def _await_evaluation(self, trainer: L.Trainer) -> None:
        """Lightning evaluates after batches that this number divides: with a beat of another first step, the
        next one due.
        """
        if self.plan.eval_first is not None:
            trainer.val_check_batch = self.plan.next_evaluation(trainer.global_step) * self.plan.accumulate


class StepsEnd(L.Callback):
    """Right after the user's own callbacks: where one ends the run amid an accumulation, whose gradients
    would be lost, the run ends with the step.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.wished = plan, False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.wished |= trainer.should_stop
        trainer.should_stop = self.wished and step_ended(self.plan, batch_idx)
