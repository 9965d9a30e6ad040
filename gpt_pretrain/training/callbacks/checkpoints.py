"""When a checkpoint is written, and which ones stay."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L

from gpt_pretrain.config import TrainerConfig
from gpt_pretrain.errors import InfrastructureError
from gpt_pretrain.runs.folders import SAVED, find_checkpoints, is_whole, remove, step_folder, tidy
from gpt_pretrain.terminal.watching import watching
from gpt_pretrain.training.callbacks.rhythm import is_due, step_ended
from gpt_pretrain.training.callbacks.stop import Stop
from gpt_pretrain.training.checkpoint_io import DirectoryCheckpointIO
from gpt_pretrain.training.loggers import TensorBoard
from gpt_pretrain.training.module import GPTModule
from gpt_pretrain.training.plan import Plan

log = logging.getLogger(__name__)

Ranking = list[dict[str, Any]]  # step and val_loss, the lowest loss first


class Checkpoints(L.Callback):
    """Saves on optimizer steps only, since in the middle of an accumulation gradients would be lost.

    Comes last of all callbacks, so that what it saves has seen the step.
    """

    def __init__(
        self,
        run: Path,
        plan: Plan,
        stop: Stop,
        config: TrainerConfig,
        during: Callable[[str], AbstractContextManager[None]] = lambda doing: nullcontext(),
    ) -> None:
        self.during = during  # what it shows while a checkpoint is written, by its words
        self.run, self.plan, self.stop, self.every = run, plan, stop, config.checkpoint_every
        self.keep_best, self.keep_last, self.best_of = config.keep_best, config.keep_last, config.best_of
        self.retries, self.failed = config.save_retries, 0  # saves, one after another
        self.in_background = config.save_in_background
        self.pending: Path | None = None  # what is being written beside training, and
        self.ranking: Ranking = []  # the best checkpoints
        self.proposed: Ranking | None = None  # the same, once what is being written is there for good

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            tidy(self.run)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = is_due(trainer.global_step, self.every) or self.stop.interrupted
        if step_ended(self.plan, batch_idx) and due and not self.stop.evaluates(trainer):
            self._save(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._settle(trainer, is_last=False)  # before what it makes of the best is compared
        if self.stop.interrupted:
            self._save(trainer, pl_module)
            return
        ranked = self._ranked(trainer.global_step, float(trainer.callback_metrics["val/loss"]))
        kept = is_due(trainer.global_step, self.every) or self.stop.ends(trainer)
        improved = any(entry["step"] == trainer.global_step for entry in ranked)
        if kept or (improved and self.keep_best):
            self.proposed = ranked if improved else None
            self._save(trainer, pl_module)

    def best_checkpoint(self) -> Path | None:
        return step_folder(self.run, self.ranking[0]["step"]) if self.ranking else None

    def state_dict(self) -> dict[str, Any]:
        ranking = self.ranking if self.proposed is None else self.proposed
        best, next_best = ranking[0] if ranking else {}, ranking[1:]
        return {"best": best, "next_best": next_best, "eval_batches": self.plan.eval_batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self.plan.measures_as(state_dict):
            return
        best = state_dict["best"]
        self.ranking = [best, *state_dict.get("next_best", [])] if best else []

    def _ranked(self, step: int, val_loss: float) -> Ranking:
        """The best with this step among them, the lowest loss first; of equal ones the earlier."""
        others = [entry for entry in self.ranking if entry["step"] != step]
        ranked = sorted([*others, {"step": step, "val_loss": val_loss}], key=lambda entry: entry["val_loss"])
        return ranked[: self.best_of]

    def _save(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, GPTModule)
        if not module.is_finite():
            raise module.diverged("the weights are no numbers")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard) and trainer.is_global_zero:
                logger.save()  # a step that is saved may not be missing there when the run goes on from it
        self._settle(trainer, is_last=False)  # what is still being written comes first
        folder = step_folder(self.run, trainer.global_step)
        is_last = self.stop.interrupted or self.stop.ends(trainer)
        n_bytes = 3 * sum(p.numel() * p.element_size() for p in module.parameters())  # AdamW keeps two more
        with self.during(f"saving {n_bytes / 1e9:.1f} GB" if n_bytes > 1e8 else "saving"):
            _io(trainer).awaited = folder
            trainer.save_checkpoint(folder)
            self.pending = folder
            if is_last or not self.in_background:
                self._settle(trainer, is_last)

    def finish(self, trainer: L.Trainer) -> None:
        """Wait for what is still being written, whatever has ended the run: by each rank for itself."""
        if self.pending is not None and trainer.is_global_zero:
            if (problem := _io(trainer).result()) is None:
                self._commit()
                self._keep(self.pending)
            else:
                log.warning("%s was not saved: %s", self.pending.name, problem)
        self.pending = self.proposed = None

    def _settle(self, trainer: L.Trainer, is_last: bool) -> None:
        """Wait for the save that was begun, and do what follows from it. Raises InfrastructureError."""
        if (folder := self.pending) is None:
            return
        self.pending = None
        problem = trainer.strategy.broadcast(_io(trainer).result())
        if problem is None:
            self.failed = 0
            self._commit()
            if trainer.is_global_zero:
                self._keep(folder)
            return
        self.proposed = None
        self.failed += 1
        step = int(folder.name.removeprefix("step-"))
        if is_last or self.failed > self.retries:
            newest = find_checkpoints(self.run)
            left = f"the newest is {newest[0].name}" if newest else "there is none yet"
            raise InfrastructureError(f"the checkpoint of step {step} failed: {problem}; {left}")
        log.warning(
            "the checkpoint of step %d failed (%d of at most %d times on end): %s; training goes on",
            *(step, self.failed, self.retries, problem),
        )

    def _commit(self) -> None:
        """What was saved counts, on every rank: all must see the same evaluations as an improvement."""
        if self.proposed is not None:
            self.ranking, self.proposed = self.proposed, None

    def _keep(self, saved: Path) -> None:
        """`saved` is there for good."""
        with watching("the note that there are checkpoints"):
            (self.run / SAVED).touch()
        self._tidy(saved)

    def _tidy(self, saved: Path) -> None:
        """Delete what has had its time, now that `saved` is there for good."""
        found = find_checkpoints(self.run)
        older = found[found.index(saved) :]  # of a later step is only what was passed over as damaged
        kept = {step_folder(self.run, entry["step"]) for entry in self.ranking}
        kept |= set([folder for folder in older if is_whole(folder)][: self.keep_last])
        for folder in older:
            if folder not in kept:
                remove(folder)


def _io(trainer: L.Trainer) -> DirectoryCheckpointIO:
    io = trainer.strategy.checkpoint_io
    assert isinstance(io, DirectoryCheckpointIO)
    return io
