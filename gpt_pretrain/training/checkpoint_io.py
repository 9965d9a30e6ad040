"""How Lightning's state becomes our checkpoint directory, and the other way round."""

import copy
import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.foreign import parse_json
from gpt_pretrain.runs.checkpoint import (
    TrainingState,
    read_config,
    read_parameters,
    read_training,
    write_checkpoint,
)
from gpt_pretrain.tokenizer import Tokenizer
from gpt_pretrain.training.optim import parameter_names

log = logging.getLogger(__name__)


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
