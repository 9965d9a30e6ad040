"""What the model writes while it learns."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from gpt_pretrain.callbacks.rhythm import is_due, is_interrupted, is_last, step_ended
from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.text import generate_text
from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.module import GPTModule
from gpt_pretrain.plan import Plan
from gpt_pretrain.tokenizer import Tokenizer

log = logging.getLogger(__name__)


class Samples(L.Callback):
    """Continues `prompt` every `plan.sample_every` steps and at the end, on rank 0, into samples.txt and
    TensorBoard.
    """

    def __init__(
        self, run: Path, plan: Plan, tokenizer: Tokenizer, prompt: str, decoding: DecodingConfig
    ) -> None:
        self.file, self.plan = run / "samples.txt", plan
        self.tokenizer, self.prompt, self.decoding = tokenizer, prompt, decoding
        self.newest = ""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = is_due(trainer.global_step, self.plan.sample_every) or is_last(trainer, self.plan)
        due = due and not is_interrupted(trainer)
        if step_ended(self.plan, batch_idx) and due and trainer.is_global_zero:
            self._sample(trainer, pl_module)

    def _sample(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, GPTModule)
        pl_module.eval()
        try:
            continuation = generate_text(pl_module.model, self.tokenizer, self.prompt, self.decoding)
        except ArtifactError as error:  # what it says of a damaged file does not hold here
            raise pl_module.diverged("the model's logits are no numbers") from error
        finally:
            pl_module.train()
        self.newest = self.prompt + continuation
        step = trainer.global_step
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(f"--- step {step}\n{self.newest}\n\n")
        log.info("step %d wrote: %s", step, " ".join(self.newest.split()))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("sample", self.newest, step)
