"""What a signal left undone at its step, made up for before the next one."""

import lightning as L

from gpt_pretrain.training.callbacks.metrics import Metrics
from gpt_pretrain.training.callbacks.samples import Samples
from gpt_pretrain.training.callbacks.stop import Stop


class Unfinished(L.Callback):
    """Last of all callbacks: the others have begun when it samples and evaluates as at that step's end."""

    def __init__(self, stop: Stop, metrics: Metrics, samples: Samples) -> None:
        self.stop, self.metrics, self.samples = stop, metrics, samples

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        due, self.stop.unfinished = self.stop.unfinished, {}
        if not any(due.values()):
            return
        if due["sample"]:
            self.samples.sample(trainer, pl_module)
        if due["evaluation"]:
            evaluation = trainer.fit_loop.epoch_loop.val_loop
            evaluation.restarting = False
            trainer.validating = True
            evaluation.run()
            trainer.training = True
        else:
            self.metrics.write_pending(trainer)
        if trainer.global_step >= self.stop.plan.steps:
            trainer.should_stop = True  # that was the end of it
