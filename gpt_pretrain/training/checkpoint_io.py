"""How Lightning's state becomes our checkpoint directory, and the other way round."""

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
from gpt_pretrain.errors import InputError
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
        self.awaited: Path | None = None  # whose result will be asked for; any other save is written at once
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
        _check_sound(checkpoint)
        checkpoint = dict(checkpoint)
        parameters = {
            key.removeprefix("model."): value for key, value in checkpoint.pop("state_dict").items()
        }
        (optimizer,) = checkpoint.pop("optimizer_states")
        tensors, groups = _flatten(optimizer)
        # What is written is the state at this step: of all that training goes on to change, a copy.
        callbacks = to_plain(checkpoint.pop("callbacks", {}))
        progress = to_plain(checkpoint | {"param_groups": groups}) | {"callbacks": callbacks}
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
        writing = write if self._beside is None else self._beside.submit(write).result
        if Path(path) == self.awaited:
            self._writing, self.awaited = writing, None
        else:
            writing()

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        folder = Path(path)
        training = read_training(folder)
        checkpoint = from_plain(training.progress)
        groups = checkpoint.pop("param_groups")
        callbacks = checkpoint.get("callbacks", {})
        checkpoint["callbacks"] = {name: state for name, state in callbacks.items() if state}
        parameters = read_parameters(folder, read_config(folder))
        checkpoint["state_dict"] = {f"model.{name}": tensor for name, tensor in parameters.items()}
        checkpoint["optimizer_states"] = [_unflatten(training.optimizer_tensors, groups)]
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path)


def _check_sound(checkpoint: Mapping[str, Any]) -> None:
    """Raise InputError for what a callback of the user's asks to be saved, and no run could go on from."""
    if "optimizer_states" not in checkpoint:
        raise InputError(
            "trainer.save_checkpoint(weights_only=True) leaves out what training needs to go on: save "
            "without it; python -m gpt_pretrain.export makes weights of the checkpoint"
        )
    step, accumulate = checkpoint["global_step"], checkpoint["plan"]["accumulate"]
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    if batches["started"] > batches["processed"] or batches["processed"] % accumulate:
        raise InputError(
            f"trainer.save_checkpoint amid step {step + 1}, whose gradients would be lost: "
            f"save after the last of its {accumulate} micro-steps"
        )


TENSOR, NUMBER = "tensor", "number"  # the keys of a tensor's numbers, and of one that JSON has no word for
LARGEST = 4 << 20  # characters of a state: read_state has its bounds


def to_plain(states: Mapping[str, Any]) -> dict[str, Any]:
    """States as plain values, as JSON has them. What is none is left out with a warning: a callback of the
    user's then begins anew where the run goes on.
    """
    plain = {}
    for name, state in states.items():
        try:
            text = json.dumps(state, default=_Tensors().to_plain)
            if len(text) > LARGEST:
                raise ValueError(f"it has {len(text):,} characters")
            plain[name] = parse_json(text, parse_constant=lambda word: {NUMBER: word})
        except (TypeError, ValueError) as error:
            log.warning("the state of %s is not saved: %s", name, error)
    return plain


class _Tensors:
    """The tensors of one state, no more of them than it may have characters."""

    def __init__(self) -> None:
        self.n_numbers = 0

    def to_plain(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, Tensor):
            raise TypeError(f"a {type(value).__name__} is no plain value")
        self.n_numbers += value.numel()
        if self.n_numbers > LARGEST // 4:  # characters that a number takes at least
            raise ValueError(f"its tensors have more than {LARGEST // 4:,} numbers")
        return {TENSOR: value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}


def from_plain(state: Any) -> Any:
    if isinstance(state, dict):
        if set(state) == {NUMBER} and isinstance(state[NUMBER], str):
            return float(state[NUMBER])
        if set(state) == {TENSOR, "dtype"}:
            dtype, values = getattr(torch, str(state["dtype"]), None), from_plain(state[TENSOR])
            return torch.tensor(values, dtype=dtype if isinstance(dtype, torch.dtype) else None)
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
