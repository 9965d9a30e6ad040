"""When a checkpoint is written, which ones stay, and how Lightning's state becomes our directory."""

import copy
import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from gpt_pretrain.config import ModelConfig, TrainerConfig
from gpt_pretrain.errors import InfrastructureError
from gpt_pretrain.foreign import parse_json
from gpt_pretrain.runs.checkpoint import (
    TrainingState,
    read_config,
    read_parameters,
    read_training,
    write_checkpoint,
)
from gpt_pretrain.runs.folders import SAVED, find_checkpoints, is_whole, remove, step_folder, tidy
from gpt_pretrain.terminal.watching import watching
from gpt_pretrain.tokenizer import Tokenizer
from gpt_pretrain.training.callbacks.rhythm import is_due, step_ended
from gpt_pretrain.training.callbacks.stop import Stop
from gpt_pretrain.training.loggers import TensorBoard
from gpt_pretrain.training.module import GPTModule
from gpt_pretrain.training.optim import parameter_names
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
        return {"best": ranking[0] if ranking else {}, "next_best": ranking[1:]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
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


class DirectoryCheckpointIO(CheckpointIO):
    """Lightning's checkpoint dictionary as a checkpoint directory."""

    def __init__(
        self,
        model_config: ModelConfig,
        tokenizer: Tokenizer,
        settings: Mapping[str, Any],
        in_background: bool = False,
    ) -> None:
        self.model_config, self.tokenizer, self.settings = model_config, tokenizer, settings
        self._beside = ThreadPoolExecutor(1, "checkpoint") if in_background else None
        self._writing: Callable[[], None] = lambda: None  # writes it, or waits for it to be written

    def result(self) -> str | None:
        """What goes wrong with the newest save, on the rank that writes; returns once it is written."""
        write, self._writing = self._writing, lambda: None
        try:
            write()
        except OSError as error:  # not raised: the other ranks would wait for this one
            return str(error)
        return None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        checkpoint = dict(checkpoint)
        parameters = {
            key.removeprefix("model."): value for key, value in checkpoint.pop("state_dict").items()
        }
        (optimizer,) = checkpoint.pop("optimizer_states")
        tensors, groups = _flatten(optimizer)
        # What is written is the state at this step: of all that training goes on to change, a copy.
        callbacks = {name: to_plain(name, state) for name, state in checkpoint.get("callbacks", {}).items()}
        progress = copy.deepcopy(checkpoint | {"param_groups": groups, "callbacks": callbacks})
        if self._beside is not None:
            parameters = {name: value.detach().to("cpu", copy=True) for name, value in parameters.items()}
            tensors = {name: value.cpu() for name, value in tensors.items()}
        write = partial(
            write_checkpoint,
            Path(path),
            parameters=parameters,
            model_config=self.model_config,
            tokenizer=self.tokenizer,
            settings=self.settings,
            training=TrainingState(optimizer_tensors=tensors, progress=progress),
        )
        self._writing = write if self._beside is None else self._beside.submit(write).result

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        folder = Path(path)
        training = read_training(folder)
        checkpoint = dict(training.progress)
        groups = checkpoint.pop("param_groups")
        callbacks = checkpoint.get("callbacks", {})
        checkpoint["callbacks"] = {name: from_plain(state) for name, state in callbacks.items() if state}
        parameters = read_parameters(folder, read_config(folder))
        checkpoint["state_dict"] = {f"model.{name}": tensor for name, tensor in parameters.items()}
        checkpoint["optimizer_states"] = [_unflatten(training.optimizer_tensors, groups)]
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path)


TENSOR = "tensor"  # the key of a tensor's numbers, among plain values


def to_plain(name: str, state: Any) -> Any:
    """A callback's state as plain values. What is none is left out with a warning: a user's own callback then
    begins anew where the run goes on.
    """
    try:
        return parse_json(json.dumps(state, default=_tensor_to_plain))
    except TypeError as error:
        log.warning("the state of %s is not saved: %s", name, error)
        return None


def _tensor_to_plain(value: Any) -> dict[str, Any]:
    if not isinstance(value, Tensor):
        raise TypeError(f"a {type(value).__name__} is no plain value")
    return {TENSOR: value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}


def from_plain(state: Any) -> Any:
    if isinstance(state, dict):
        if set(state) == {TENSOR, "dtype"}:
            dtype = getattr(torch, str(state["dtype"]), None)
            return torch.tensor(state[TENSOR], dtype=dtype if isinstance(dtype, torch.dtype) else None)
        return {key: from_plain(value) for key, value in state.items()}
    return [from_plain(value) for value in state] if isinstance(state, list) else state


def _io(trainer: L.Trainer) -> DirectoryCheckpointIO:
    io = trainer.strategy.checkpoint_io
    assert isinstance(io, DirectoryCheckpointIO)
    return io


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
