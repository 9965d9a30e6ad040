"""How Lightning's state becomes our checkpoint directory, and the other way round."""

import logging
import math
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
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.foreign import json_text
from gpt_pretrain.runs.checkpoint import (
    TrainingState,
    read_config,
    read_parameters,
    read_training,
    write_checkpoint,
)
from gpt_pretrain.runs.folders import STATE
from gpt_pretrain.tokenizer import Tokenizer
from gpt_pretrain.training.optim import parameter_names
from gpt_pretrain.weights.safetensors_file import DTYPES

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
        tensors, groups, without = _flatten(optimizer)
        # What is written is the state at this step: of all that training goes on to change, a copy.
        callbacks = checkpoint.pop("callbacks", {})
        progress = to_plain(checkpoint | {"param_groups": groups, "without_state": without}, callbacks)
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
        try:
            checkpoint = {name: from_plain(state) for name, state in training.progress.items()}
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            why = " ".join(str(error).split())
            raise ArtifactError(f"{folder / STATE} cannot be read: {why:.100}") from error
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


# What stands for a number that JSON has no word for, a tensor, a tuple, and a mapping that JSON has not.
NUMBER, TENSOR, TUPLE, PAIRS = "number", "tensor", "as tuple", "as pairs"
_MARKS = ({NUMBER}, {TENSOR, "dtype"}, {TENSOR, "dtype", "shape"}, {TUPLE}, {PAIRS})
_WORDS = ("NaN", "Infinity", "-Infinity")
LARGEST, MOST = 32 << 20, 1_000_000  # characters and values of all states together: read_state has its bounds
DEEPEST = 100  # levels of a state


def to_plain(progress: Mapping[str, Any], callbacks: Mapping[str, Any]) -> dict[str, Any]:
    """States as plain values, as JSON has them, the callbacks' among them. What is none, or finds no room
    beside the smaller ones, is left out with a warning: a callback of the user's then begins anew where the
    run goes on.
    """
    plain: dict[str, Any] = {"callbacks": {}}
    sized = []
    for states, into in ((progress, plain), (callbacks, plain["callbacks"])):
        for name, state in states.items():
            try:
                if not isinstance(name, str):
                    raise TypeError("its name is no text")
                values = _Values()
                encoded = values.to_plain(state)
                sized.append((len(json_text({name: encoded})), values.n, name, encoded, into))
            except (TypeError, ValueError, RuntimeError) as error:
                log.warning("the state of %s is not saved: %s", name, error)
    n_characters = n_values = 0
    for more_characters, more_values, name, encoded, into in sorted(sized, key=lambda entry: entry[:2]):
        n_characters, n_values = n_characters + more_characters, n_values + more_values
        if n_characters <= LARGEST and n_values <= MOST:
            into[name] = encoded
        else:
            log.warning(
                "the state of %s is not saved: it has %s values in %s characters, and all states "
                "together may have %s in %s",
                *(name, f"{more_values:,}", f"{more_characters:,}", f"{MOST:,}", f"{LARGEST:,}"),
            )
    return plain


class _Values:
    """Those of one state, and how many there are."""

    def __init__(self) -> None:
        self.n = 0

    def to_plain(self, value: Any, depth: int = 0) -> Any:
        self._count(1)
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")
        match value:
            case None | str() | int():
                return value
            case float():
                return value if math.isfinite(value) else {NUMBER: _word(value)}
            case Tensor():
                return self._tensor(value)
            case list():
                return [self.to_plain(item, depth + 1) for item in value]
            case tuple():
                return {TUPLE: [self.to_plain(item, depth + 1) for item in value]}
            case dict() if set(value) not in _MARKS and all(isinstance(key, str) for key in value):
                return {key: self.to_plain(item, depth + 1) for key, item in value.items()}
            case dict():  # with other keys than texts, or what looks as if it stood for something else
                return {PAIRS: [self.to_plain(list(pair), depth + 1) for pair in value.items()]}
        raise TypeError(f"a {type(value).__name__} is no plain value")

    def _tensor(self, tensor: Tensor) -> dict[str, Any]:
        if tensor.dtype not in DTYPES.values():
            raise TypeError(f"a tensor of {tensor.dtype} is no plain value")
        self._count(tensor.numel() + tensor.ndim)
        numbers = tensor.detach().flatten().tolist()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            numbers = [self.to_plain(number) for number in numbers]
        kind = str(tensor.dtype).removeprefix("torch.")
        return {TENSOR: numbers, "dtype": kind, "shape": list(tensor.shape)}

    def _count(self, more: int) -> None:
        self.n += more
        if self.n > MOST:
            raise ValueError(f"it has more than {MOST:,} values")


def _word(number: float) -> str:
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def from_plain(state: Any) -> Any:
    """Raises ValueError, TypeError or RuntimeError for what `to_plain` does not make."""
    if isinstance(state, list):
        return [from_plain(value) for value in state]
    if not isinstance(state, dict):
        return state
    keys = state.keys()
    if keys == {NUMBER} and state[NUMBER] in _WORDS:
        return float(state[NUMBER])
    if {TENSOR, "dtype"} <= keys <= {TENSOR, "dtype", "shape"}:
        return _to_tensor(from_plain(state[TENSOR]), state["dtype"], state.get("shape"))
    if keys == {TUPLE}:
        return tuple(from_plain(state[TUPLE]))
    if keys == {PAIRS}:
        return {from_plain(key): from_plain(value) for key, value in state[PAIRS]}
    return {key: from_plain(value) for key, value in state.items()}


def _to_tensor(numbers: Any, kind: Any, shape: Any) -> Tensor:
    dtype = getattr(torch, str(kind), None)
    tensor = torch.tensor(numbers, dtype=dtype if isinstance(dtype, torch.dtype) else None)
    return tensor if shape is None else tensor.view(shape)  # an earlier version's lists had it


def _flatten(optimizer: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]], list[str]]:
    """An optimizer's state as tensors named `<parameter>:<key>`, its groups as plain values, and of which
    parameters it has no state.
    """
    names = parameter_names(optimizer["param_groups"])
    tensors = {
        # torch may keep one step counter for all: files may not
        f"{names[index]}:{key}": value.detach().clone()
        for index, state in optimizer["state"].items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    without = sorted(set(names.values()) - {name.rpartition(":")[0] for name in tensors})
    return tensors, optimizer["param_groups"], without


def _unflatten(tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    indices = {name: index for index, name in parameter_names(groups).items()}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parameter, key = re.fullmatch(r"(.+):(\w+)", name).groups()  # type: ignore[union-attr]
        state.setdefault(indices[parameter], {})[key] = tensor
    return {"state": state, "param_groups": groups}
