"""What the model writes while it learns."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import lightning as L

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.text import generate_text
from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.terminal.text import printable
from gpt_pretrain.terminal.watching import watching
from gpt_pretrain.tokenizer import Tokenizer
from gpt_pretrain.training.callbacks.rhythm import is_due, step_ended
from gpt_pretrain.training.callbacks.stop import Stop
from gpt_pretrain.training.loggers import TensorBoard
from gpt_pretrain.training.module import GPTModule
from gpt_pretrain.training.plan import Plan

log = logging.getLogger(__name__)


class Samples(L.Callback):
    """Continues `prompt` every `plan.sample_every` steps and at the end, into samples.txt and TensorBoard."""

    def __init__(
        self, run: Path, plan: Plan, stop: Stop, tokenizer: Tokenizer, prompt: str, decoding: DecodingConfig
    ) -> None:
        self.file, self.plan, self.stop = run / "samples.txt", plan, stop
        self.tokenizer, self.prompt, self.decoding = tokenizer, prompt, decoding
        self.newest = ""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A sample of one token, thrown away: what the first one will lack shows before the first step."""
        if trainer.is_global_zero:
            with watching("samples"):
                one = dataclasses.replace(self.decoding, max_new_tokens=1, min_new_tokens=0)
                self._continuation(pl_module, one)
            self._write("", mode="a" if trainer.global_step else "w")  # a run may begin anew in its folder

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = is_due(trainer.global_step, self.plan.sample_every) or self.stop.ends(trainer)
        due = due and step_ended(self.plan, batch_idx) and not self.stop.interrupted
        if due and trainer.is_global_zero:
            with watching("samples"):
                self._sample(trainer, pl_module)

    def _sample(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.newest = self.prompt + self._continuation(pl_module, self.decoding)
        step = trainer.global_step
        self._write(f"--- step {step}\n{printable(self.newest)}\n\n")
        log.info("step %d wrote: %s", step, " ".join(self.newest.split()))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard):
                logger.log_text("sample", self.newest, step)

    def _continuation(self, module: L.LightningModule, decoding: DecodingConfig) -> str:
        assert isinstance(module, GPTModule)
        module.eval()
        try:
            return generate_text(module.model, self.tokenizer, self.prompt, decoding)
        except ArtifactError as error:  # what it says of a damaged file does not hold here
            raise module.diverged("the model's logits are no numbers") from error
        finally:
            module.train()

    def _write(self, text: str, mode: str = "a") -> None:
        with watching("samples.txt"), self.file.open(mode, encoding="utf-8") as stream:
            stream.write(text)
