"""A checkpoint is a directory that is a model: committed whole, verified by its manifest, no pickle.

Its files make a Hugging Face GPT-2 model with tokenizer; `optimizer.safetensors` and `trainer_state.json` are
what training needs to go on, `settings.yaml` says how it was made, and `manifest.json` names every file's
size and SHA-256.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.model import GPTModel
from gpt_pretrain.runs.folders import MANIFEST, fingerprint, verify
from gpt_pretrain.runs.foreign import read_json, to_yaml
from gpt_pretrain.runs.record import SETTINGS
from gpt_pretrain.tokenizer import TOKENIZER_FILE, Tokenizer, load_tokenizer, settings_file
from gpt_pretrain.weights.fit import check_fit
from gpt_pretrain.weights.huggingface import (
    from_huggingface_config,
    to_huggingface,
    to_huggingface_config,
)
from gpt_pretrain.weights.read import build_model, open_weights


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
    partial.mkdir(parents=True)
    try:
        _save_tensors(to_huggingface(parameters, model_config), partial / "model.safetensors")
        _save_tensors(training.optimizer_tensors, partial / "optimizer.safetensors")
        end_of_text = {"bos_token_id": tokenizer.end_of_text_id, "eos_token_id": tokenizer.end_of_text_id}
        for name, content in {
            "config.json": to_huggingface_config(model_config, tokenizer.end_of_text_id),
            "generation_config.json": end_of_text,
            "trainer_state.json": training.progress,
        }.items():
            (partial / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        tokenizer_files = tokenizer.files() | {TOKENIZER_FILE: settings_file(tokenizer)}
        for name, data in tokenizer_files.items():
            (partial / name).write_bytes(data)
        (partial / SETTINGS).write_text(to_yaml(settings), encoding="utf-8")
        manifest = {file.name: fingerprint(file) for file in sorted(partial.iterdir())}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        # The disk holds each file, then the folder's list of them, before the name says that all is there.
        for file in partial.iterdir():
            _sync(file)
        _sync(partial)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_config(folder: Path) -> ModelConfig:
    """The model's shape, from a checkpoint's `config.json`. Raises ArtifactError."""
    try:
        return from_huggingface_config((folder / "config.json").read_bytes())
    except OSError as error:
        raise ArtifactError(f"{folder}: config.json cannot be read: {error.strerror}") from error


def read_parameters(folder: Path, config: ModelConfig) -> dict[str, Tensor]:
    """The model's parameters under our names, checked against `config`. Raises a UserFacingError."""
    weights = open_weights(folder / "model.safetensors")
    check_fit(weights.config, config)
    return weights.parameters()


def load_model(folder: Path) -> tuple[GPTModel, Tokenizer]:
    """A verified checkpoint's model, in evaluation mode, and its tokenizer."""
    verify(folder)
    weights = open_weights(folder)
    return build_model(weights, weights.config).eval(), read_tokenizer(folder)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that a checkpoint was trained with, from its own files. Raises ArtifactError."""
    return load_tokenizer(folder)


def read_training(folder: Path) -> TrainingState:
    """What training goes on from. Raises ArtifactError for files that cannot be read."""
    return TrainingState(
        optimizer_tensors=_load_tensors(folder / "optimizer.safetensors"),
        progress=read_json(folder / "trainer_state.json", 64 << 20),
    )


def _save_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    try:
        save_file(tensors, file, {"format": "pt"})
    except SafetensorError as error:  # its name for a full disk
        raise OSError(f"{file} cannot be written: {error}") from error


def _load_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{file} cannot be read: {error}") from error


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
