"""When a checkpoint is written, which ones stay, and how Lightning's state becomes our directory."""

import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from gpt_pretrain.config import ModelConfig, TrainerConfig
from gpt_pretrain.runs.checkpoint import (
    TrainingState,
    read_config,
    read_parameters,
    read_training,
    write_checkpoint,
)
from gpt_pretrain.runs.folders import find_checkpoints
from gpt_pretrain.tokenizer import Tokenizer
from gpt_pretrain.training.callbacks.rhythm import is_due, step_ended
from gpt_pretrain.training.callbacks.stop import Stop
from gpt_pretrain.training.module import GPTModule
from gpt_pretrain.training.optim import parameter_names
from gpt_pretrain.training.plan import Plan


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
        self.keep_best, self.keep_last = config.keep_best, config.keep_last
        self.best: dict[str, Any] = {}  # step and val_loss of the best checkpoint

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:  # of a process that was killed while it saved
            for partial in (self.run / "checkpoints").glob(".*.partial"):
                shutil.rmtree(partial)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = is_due(trainer.global_step, self.every) or self.stop.interrupted
        if step_ended(self.plan, batch_idx) and due and not self.stop.evaluates(trainer):
            self._save(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        val_loss = float(trainer.callback_metrics["val/loss"])
        improved = not self.best or val_loss < self.best["val_loss"]
        kept = is_due(trainer.global_step, self.every) or self.stop.ends(trainer)
        if kept or (improved and self.keep_best):
            if improved:
                self.best = {"step": trainer.global_step, "val_loss": val_loss}
            self._save(trainer, pl_module)

    def best_checkpoint(self) -> Path | None:
        return folder_of(self.run, self.best["step"]) if self.best else None

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def _save(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, GPTModule)
        if not module.is_finite():
            raise module.diverged("the weights are no numbers")
        n_bytes = 3 * sum(p.numel() * p.element_size() for p in module.parameters())  # AdamW keeps two more
        with self.during(f"saving {n_bytes / 1e9:.1f} GB" if n_bytes > 1e8 else "saving"):
            trainer.save_checkpoint(folder_of(self.run, trainer.global_step))
        if trainer.is_global_zero:
            found = find_checkpoints(self.run)  # of a later step: a damaged one that was passed over
            saved = found.index(folder_of(self.run, trainer.global_step))
            for folder in found[saved + self.keep_last :]:
                if folder != self.best_checkpoint():
                    shutil.rmtree(folder)


def folder_of(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


class DirectoryCheckpointIO(CheckpointIO):
    """Lightning's checkpoint dictionary as a checkpoint directory."""

    def __init__(self, model_config: ModelConfig, tokenizer: Tokenizer, settings: Mapping[str, Any]) -> None:
        self.model_config, self.tokenizer, self.settings = model_config, tokenizer, settings

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        checkpoint = dict(checkpoint)
        parameters = {
            key.removeprefix("model."): value for key, value in checkpoint.pop("state_dict").items()
        }
        (optimizer,) = checkpoint.pop("optimizer_states")
        tensors, groups = _flatten(optimizer)
        write_checkpoint(
            Path(path),
            parameters=parameters,
            model_config=self.model_config,
            tokenizer=self.tokenizer,
            settings=self.settings,
            training=TrainingState(optimizer_tensors=tensors, progress=checkpoint | {"param_groups": groups}),
        )

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        folder = Path(path)
        training = read_training(folder)
        checkpoint = dict(training.progress)
        groups = checkpoint.pop("param_groups")
        parameters = read_parameters(folder, read_config(folder))
        checkpoint["state_dict"] = {f"model.{name}": tensor for name, tensor in parameters.items()}
        checkpoint["optimizer_states"] = [_unflatten(training.optimizer_tensors, groups)]
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path)


def _flatten(optimizer: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimizer's state as tensors named `<parameter>:<key>`, and its groups as plain values."""
    names = parameter_names(optimizer["param_groups"])
    tensors = {
        # torch may keep one step counter for all: files may not
        f"{names[index]}:{key}": value.detach().clone()
        for index, state in optimizer["state"].items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    return tensors, optimizer["param_groups"]


def _unflatten(tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    indices = {name: index for index, name in parameter_names(groups).items()}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parameter, key = re.fullmatch(r"(.+):(\w+)", name).groups()  # type: ignore[union-attr]
        state.setdefault(indices[parameter], {})[key] = tensor
    return {"state": state, "param_groups": groups}
