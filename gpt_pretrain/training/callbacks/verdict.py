"""What was measured, told to who may end the run because of it: a sweep that gives a trial up."""

from collections.abc import Callable, Mapping

import lightning as L

from gpt_pretrain.training.callbacks.stop import Stop
from gpt_pretrain.training.module import GPTModule

Hear = Callable[[int, Mapping[str, float]], str | None]  # step and losses to the exit reason; None: go on


class Verdict(L.Callback):
    """Asks after each evaluation, on the first rank, and tells the others.

    Comes before what saves, so that the run's last state is saved.
    """

    def __init__(self, stop: Stop, hear: Hear) -> None:
        self.stop, self.hear = stop, hear

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, GPTModule)
        if trainer.sanity_checking or self.stop.interrupted:
            return
        reason = self.hear(trainer.global_step, pl_module.validated) if trainer.is_global_zero else None
        reason = trainer.strategy.broadcast(reason)
        if reason is not None:
            self.stop.given_up = reason
            trainer.should_stop = True
