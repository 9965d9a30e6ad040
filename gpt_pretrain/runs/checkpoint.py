"""A checkpoint is a directory that is a model: committed whole, verified by its manifest, no pickle.

Its files make a Hugging Face GPT-2 model with tokenizer; `optimizer.safetensors` and `trainer_state.json` are
what training needs to go on, `settings.yaml` says how it was made, and `manifest.json` names every file's
size and SHA-256.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.foreign import json_text, read_bytes, to_yaml
from gpt_pretrain.runs.folders import ASIDE, MANIFEST, STATE, fingerprint, read_state
from gpt_pretrain.runs.record import SETTINGS
from gpt_pretrain.tokenizer import Tokenizer
from gpt_pretrain.weights.fit import check_fit
from gpt_pretrain.weights.huggingface import files_beside, from_huggingface_config, to_huggingface
from gpt_pretrain.weights.read import open_weights
from gpt_pretrain.weights.safetensors_file import read_safetensors, write_safetensors
from gpt_pretrain.weights.shape import parameter_shapes
from gpt_pretrain.weights.stored import Stored, check_finite

OPTIMIZER = "optimizer.safetensors"
# What a parameter's optimizer keeps of it: Adam and AdamW, and SGD and Muon.
ADAM, MOMENTUM = {"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """What training needs besides the model's parameters."""

    optimizer_tensors: dict[str, Tensor]
    progress: dict[str, Any]  # plain values: steps, losses, loop counters, parameter groups


def write_checkpoint(
    folder: Path,
    *,
    parameters: Mapping[str, Tensor],
    model_config: ModelConfig,
    tokenizer: Tokenizer,
    settings: Mapping[str, Any],
    training: TrainingState,
) -> None:
    """Write `folder` whole or not at all: into a hidden sibling first, every file synced, then renamed."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    is_first = not folder.parent.exists()
    partial.mkdir(parents=True)
    try:
        tensors = to_huggingface(parameters, model_config)
        write_safetensors(partial / "model.safetensors", tensors, {"format": "pt"})
        write_safetensors(partial / OPTIMIZER, training.optimizer_tensors, {"format": "pt"})
        for name, content in files_beside(model_config, tokenizer).items():
            (partial / name).write_bytes(content)
        (partial / STATE).write_text(json_text(training.progress) + "\n", encoding="utf-8")
        (partial / SETTINGS).write_text(to_yaml(settings), encoding="utf-8")
        manifest = {file.name: fingerprint(file) for file in sorted(partial.iterdir())}
        # Without a line's end after it: no byte of it may be lost unnoticed.
        (partial / MANIFEST).write_text(json_text(manifest, indent=2), encoding="utf-8")
        # The disk holds each file, then the folder's list of them, before the name says that all is there.
        for file in partial.iterdir():
            _sync(file)
        _sync(partial)
        aside = folder.with_name(f".{folder.name}{ASIDE}")
        if folder.exists():
            folder.rename(aside)  # a kill from here on: see `tidy`
        try:
            partial.rename(folder)
        except OSError:
            if aside.exists():
                aside.rename(folder)
            raise
        _sync(folder.parent)
        if is_first:
            _sync(folder.parent.parent)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_config(folder: Path) -> ModelConfig:
    """The model's shape, from a checkpoint's `config.json`. Raises ArtifactError."""
    return from_huggingface_config(read_bytes(folder / "config.json"))


def read_parameters(folder: Path, config: ModelConfig) -> dict[str, Tensor]:
    """The model's parameters under our names, checked against `config`. Raises a UserFacingError."""
    weights = open_weights(folder / "model.safetensors")
    check_fit(weights.config, config)
    return weights.parameters()


def check_training(folder: Path) -> dict[str, Any]:
    """The state in `folder`, its tensors left out; of these only types and shapes are read. Raises
    ArtifactError for what training cannot go on from.
    """
    progress, file = read_state(folder), folder / OPTIMIZER
    tensors, _ = read_safetensors(file)
    _check_optimizer(file, tensors, read_config(folder), progress)
    return progress


def read_training(folder: Path) -> TrainingState:
    """What training goes on from. Raises ArtifactError for files that cannot be read, or do not fit."""
    progress = check_training(folder)
    return TrainingState(optimizer_tensors=_load_tensors(folder / OPTIMIZER), progress=progress)


def _check_optimizer(
    file: Path, tensors: Mapping[str, Stored], config: ModelConfig, progress: Mapping[str, Any]
) -> None:
    """Tensors named `<parameter>:<key>`: what each parameter's optimizer keeps of it, shaped as it."""
    shapes = parameter_shapes(config)
    keys: dict[str, set[str]] = {}
    absent = {name for name in shapes if name.endswith("qkv.bias") and not config.qkv_bias}
    absent |= {"out_head.weight"} if config.tie_weights else set()
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition(":")
        if tensor.shape != (() if key == "step" else shapes.get(parameter)):
            raise ArtifactError(f"{file} does not fit the model: {name!r:.80} has the shape {tensor.shape}")
        if not tensor.dtype.is_floating_point:
            raise ArtifactError(f"{file} does not fit the model: {name!r:.80} is {tensor.dtype}")
        keys.setdefault(parameter, set()).add(key)
    groups = progress.get("param_groups", [])
    for group in groups:
        kept = ADAM if "betas" in group else MOMENTUM
        without = progress.get("without_state", group["param_names"])  # an earlier version did not say
        for name in group["param_names"]:
            found = keys.pop(name, set())
            if found != kept and (found or name not in without):
                has = ", ".join(sorted(found)) or "nothing"
                raise ArtifactError(f"{file} does not fit the run: of {name!r:.80} it has {has:.80}")
    names = [name for group in groups for name in group["param_names"]]
    numbers = {number for group in groups for number in group["params"]}
    if keys or sorted(names) != sorted(shapes.keys() - absent) or len(numbers) != len(names):
        raise ArtifactError(f"{file} does not fit the run: {STATE} names other parameters than the model has")


def _load_tensors(file: Path) -> dict[str, Tensor]:
    tensors, _ = read_safetensors(file)
    own = {}
    for name, stored in tensors.items():
        own[name] = stored.read().clone()  # what is mapped is the file's
        check_finite(file, name, own[name])
        stored.release()
    return own


def _sync(path: Path) -> None:
    if (
        os.name == "nt" and path.is_dir()
    ):  # Windows opens no folder; its rename is in its file system's journal
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
