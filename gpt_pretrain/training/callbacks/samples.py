"""What the model writes while it learns."""

import dataclasses
import logging
import re
from pathlib import Path
from typing import Any

import lightning as L

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.picture import draw_next_tokens
from gpt_pretrain.decoding.scoring import next_token_logits
from gpt_pretrain.decoding.text import encode, generate_text
from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.runs.folders import replace
from gpt_pretrain.terminal.text import printable
from gpt_pretrain.terminal.watching import watching
from gpt_pretrain.tokenizer import Tokenizer, decode
from gpt_pretrain.training.callbacks.rhythm import step_ended
from gpt_pretrain.training.callbacks.stop import Stop
from gpt_pretrain.training.loggers import TensorBoard
from gpt_pretrain.training.module import GPTModule
from gpt_pretrain.training.plan import Plan
from gpt_pretrain.training.shards import is_sharded

log = logging.getLogger(__name__)

SHOWN_TOKENS = 10  # in the picture of next tokens
_HEADER = re.compile(r"^--- step ([0-9]{1,18})$", re.MULTILINE)


class Samples(L.Callback):
    """Continues `prompt` before the first step, at every evaluation or every `plan.sample_every` steps, and
    at the end, into samples.txt and TensorBoard, which gets a picture of what the model expects next, too.
    """

    def __init__(
        self, run: Path, plan: Plan, stop: Stop, tokenizer: Tokenizer, prompt: str, decoding: DecodingConfig
    ) -> None:
        self.file, self.plan, self.stop = run / "samples.txt", plan, stop
        self.tokenizer, self.prompt, self.decoding = tokenizer, prompt, decoding
        self.first = self.newest = ""  # before training, and by now
        self.sharded = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The untrained model's, or one token, thrown away: what a sample will lack shows before a step."""
        self.sharded = is_sharded(pl_module.model)  # type: ignore[arg-type]
        if self.sharded and trainer.is_global_zero:
            log.info("no samples while the model lies in shards: generate.py continues a checkpoint")
        elif trainer.is_global_zero:
            with watching("samples.txt"):
                again = trainer.global_step == 0 or self.stop.unfinished.get("sample")
                self._keep(before=trainer.global_step + (not again))
            with watching("samples"):
                if trainer.global_step == 0:
                    self._sample(trainer, pl_module)
                    self.first = self.newest
                else:
                    one = dataclasses.replace(self.decoding, max_new_tokens=1, min_new_tokens=0)
                    self._continuation(pl_module, one)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = step_ended(self.plan, batch_idx) and self.stop.samples(trainer) and not self.stop.interrupted
        if due:
            self.sample(trainer, pl_module)

    def sample(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw one at this step. The other ranks wait for it where they next meet the first."""
        if trainer.is_global_zero and not self.sharded:
            with watching("samples"):
                self._sample(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first = str(state_dict["first"])

    def _sample(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.newest = self.prompt + self._continuation(pl_module, self.decoding)
        step = trainer.global_step
        self._write(f"--- step {step}\n{printable(self.newest)}\n\n")
        log.info("step %d wrote: %s", step, " ".join(self.newest.split()))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard):
                logger.log_text("1 sample", self.newest, step)
                if logger.pictures:
                    with watching("the picture of next tokens"):
                        logger.log_picture("next token", self._picture(pl_module), step)

    def _picture(self, module: L.LightningModule) -> bytes:
        assert isinstance(module, GPTModule)
        module.eval()
        try:
            logits = next_token_logits(module.model, encode(self.tokenizer, self.prompt))
        finally:
            module.train()
        ids = logits.topk(min(SHOWN_TOKENS, len(logits))).indices.tolist()
        return draw_next_tokens(logits, [decode(self.tokenizer, [id_]) for id_ in ids])

    def _continuation(self, module: L.LightningModule, decoding: DecodingConfig) -> str:
        assert isinstance(module, GPTModule)
        module.eval()
        try:
            return generate_text(module.model, self.tokenizer, self.prompt, decoding)
        except ArtifactError as error:  # what it says of a damaged file does not hold here
            raise module.diverged("the model's logits are no numbers") from error
        finally:
            module.train()

    def _write(self, text: str) -> None:
        with watching("samples.txt"), self.file.open("a", encoding="utf-8") as stream:
            stream.write(text)

    def _keep(self, *, before: int) -> None:
        """Only the samples of earlier steps: those from the step on are drawn again."""
        if not self.file.is_file():
            self.file.touch()
            return
        text = self.file.read_text(encoding="utf-8", errors="replace")
        steps = [(int(found[1]), found.start()) for found in _HEADER.finditer(text)]
        end = next((start for step, start in steps if step >= before), len(text) if steps else 0)
        kept = text[:end].rstrip("\n") + "\n\n" if end else ""
        if kept != text:
            replace(self.file, kept.encode())
