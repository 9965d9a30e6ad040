"""Weights from any folder or file: what it is, is told by its content.

`open_weights` reads headers and checks everything that can be known without reading a number;
`Weights.parameters` then gives the numbers, mapped rather than read wherever the layout allows.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.errors import ArtifactError, InputError, UserFacingError
from gpt_pretrain.foreign import open_plain, parse_json, read_bytes
from gpt_pretrain.model import GPTModel
from gpt_pretrain.weights.bundle import looks_like_index, read_bundle
from gpt_pretrain.weights.dialects import HUGGINGFACE, NANOGPT, OPENAI, Dialect, as_ours, detect
from gpt_pretrain.weights.fit import check_fit, fit
from gpt_pretrain.weights.huggingface import read_huggingface_settings
from gpt_pretrain.weights.pickled import read_pickle
from gpt_pretrain.weights.safetensors_file import (
    looks_like_safetensors,
    read_safetensors,
    without_duplicates,
)
from gpt_pretrain.weights.shape import check_tensors, may_be_absent, parameter_shapes, read_shape
from gpt_pretrain.weights.stored import Stored, check_finite, check_inside

MAX_JSON = 16 << 20  # bytes
OWN_FILES = ("optimizer.safetensors",)  # of our checkpoints: no model
# What transformers opens of a folder, in its order: beside them lie a Trainer's states, and other formats.
MAIN = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
READABLE = ("shards", "safetensors", "tensorflow", "torch")  # kinds of files, the first of a folder's first
REFUSED = ("old torch", "pointer")  # with a line that says what to do
_POINTER = b"version https://git-lfs.github.com/spec/"
_OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch < 1.6 pickles first


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's weights that have been checked and not yet read."""

    path: Path  # the file that was told apart: in a folder, the one that holds the tensors or lists them
    dialect: Dialect
    config: ModelConfig
    tensors: Mapping[str, Stored]

    def parameters(self, *, own: bool = False) -> dict[str, Tensor]:
        """Every parameter under our name, float32; the tied head is the token embedding itself.

        With `own`, contiguous copies, made one at a time so that the file is never in memory beside them.
        """
        state = {}
        for ours, theirs in self.dialect.names(self.config).items():
            if theirs[0] not in self.tensors and may_be_absent(self.tensors, self.dialect, ours):
                state[ours] = torch.zeros(parameter_shapes(self.config)[ours])
                continue
            pieces = [self.tensors[name].read() for name in theirs]
            for name, piece in zip(theirs, pieces, strict=True):
                check_finite(self.path, name, piece)
            # Exact: every float16 and bfloat16 is a float32.
            state[ours] = as_ours(pieces, self.dialect, ours).float()
            if own:
                state[ours] = state[ours].clone(memory_format=torch.contiguous_format)
                del pieces
                for name in theirs:
                    self.tensors[name].release()
        if self.config.tie_weights:
            state["out_head.weight"] = state["tok_emb.weight"]
        return state


def open_weights(path: Path, n_heads: int | None = None) -> Weights:
    """The weights at `path`, a file or a folder. `n_heads` is used where the file does not say it.

    Raises ArtifactError for what is damaged, unsafe or no GPT-2, InputError for a folder of several."""
    file, kind = _find(path) if path.is_dir() else (path, _kind(path))
    if kind is None:
        raise ArtifactError(
            f"{path} is none of the files we read: safetensors, TensorFlow, torch or their index"
        )
    try:
        tensors, said = _READERS[kind](file)
        dialect = detect(tensors)
        said = said or _beside(file, dialect)
        config = read_shape(tensors, dialect, said, n_heads)
        check_tensors(tensors, dialect, config)
    except UserFacingError as error:
        text = str(error)
        raise type(error)(text if str(path) in text else f"{file}: {text}") from error
    return Weights(file, dialect, config, tensors)


def build_model(weights: Weights, config: ModelConfig, *, own: bool = False) -> GPTModel:
    """The model of `config` with these weights. Raises InputError where they do not fit.

    Parameters are views of the file, which cost no memory; with `own`, for training, contiguous copies."""
    check_fit(weights.config, config)
    with torch.device("meta"), _WithoutInitialisation():
        model = GPTModel(config)
    state = fit(weights.parameters(own=own), config)
    if own and weights.config.tie_weights and not config.tie_weights:
        # So far it is the embedding's own tensor, and would be trained with it.
        state["out_head.weight"] = state["out_head.weight"].clone()
    model.load_state_dict(state, assign=True)
    if config.tie_weights:
        # To assign made two parameters of the one tensor.
        model.out_head.weight = model.tok_emb.weight
    return model


class _WithoutInitialisation(TorchFunctionMode):
    """Leaves out what torch.nn.init does: on no device it draws nothing and takes a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if kwargs else args[0]
        return func(*args, **(kwargs or {}))


def _kind(file: Path) -> str | None:
    """What a file is, by its first and last bytes."""
    try:
        with open_plain(file, follow=True) as stream:
            start = stream.read(len(_POINTER))
            size = stream.seek(0, 2)
            stream.seek(max(0, size - 8))
            end = stream.read(8)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    if start[:4] == b"PK\x03\x04":  # a zip's first record
        return "torch"
    if start.startswith(_OLD_TORCH):
        return "old torch"
    if start == _POINTER:
        return "pointer"
    if looks_like_index(end):
        return "tensorflow"
    if looks_like_safetensors(start, size):
        return "safetensors"
    if start.lstrip()[:1] == b"{" and size <= MAX_JSON:
        with suppress(ArtifactError):  # broken, so no index
            return "shards" if isinstance(_json(file).get("weight_map"), dict) else None
    return None


def _find(folder: Path) -> tuple[Path, str]:
    """The one file of a folder that holds the model, or lists its shards."""
    kinds: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name not in OWN_FILES and (kind := _kind(file)):
            check_inside(file)
            kinds.setdefault(kind, []).append(file)
    readable = {file.name: (file, kind) for kind in READABLE for file in kinds.get(kind, [])}
    refused = {file.name: (file, kind) for kind in REFUSED for file in kinds.get(kind, [])}
    for found in (readable, refused):
        if main := next((found[name] for name in MAIN if name in found), None):
            return main
    for kind in READABLE:
        files = kinds.get(kind, [])
        if len(files) == 1:
            return files[0], kind
        if files:
            names = ", ".join(file.name for file in files[:4])
            raise InputError(f"{folder} has several files of weights: {names}\ngive the path of one of them")
    if refused:
        return next(iter(refused.values()))
    raise ArtifactError(f"{folder} holds no weights: no safetensors, TensorFlow or torch file is in it")


def _read_shards(index: Path) -> tuple[dict[str, Stored], dict[str, Any]]:
    """The tensors of all files that an index lists; every file lies in the index's own folder."""
    weight_map = _json(index)["weight_map"]
    tensors: dict[str, Stored] = {}
    said: dict[str, Any] = {}
    for place in weight_map.values():
        # No slash, and no dot in front: a name in this folder.
        if not isinstance(place, str) or not re.fullmatch(r"[\w-][\w.-]*", place):
            raise ArtifactError(f"{index} points outside its folder: {place!r}")
    for name in sorted(set(weight_map.values())):
        shard = index.with_name(name)
        if not shard.is_file():
            raise ArtifactError(f"{index} lists {name}, which is missing")
        check_inside(shard)
        kind = _kind(shard)
        if kind in (None, "shards", "tensorflow"):
            raise ArtifactError(f"{shard} is neither a safetensors nor a torch file")
        found, said = _READERS[kind](shard)
        listed = {tensor for tensor, place in weight_map.items() if place == name}
        if found.keys() != listed:
            differing = sorted(found.keys() ^ listed)[0]
            raise ArtifactError(f"{index} and {name} disagree about {differing}")
        tensors |= found
    return tensors, said


def _read_safetensors(file: Path) -> tuple[dict[str, Stored], dict[str, Any]]:
    """Tensors, and the shape that our own export keeps in the metadata."""
    tensors, metadata = read_safetensors(file)
    return tensors, _json_object(metadata.get("gpt_pretrain", "{}").encode(), file)


def _read_torch(file: Path) -> tuple[dict[str, Stored], dict[str, Any]]:
    """Tensors, and nanoGPT's `model_args` under our names."""
    tensors, model_args = read_pickle(file)
    return tensors, NANOGPT.read_sizes(model_args)


def _read_tensorflow(index: Path) -> tuple[dict[str, Stored], dict[str, Any]]:
    return read_bundle(index), {}


def _refuse_old_torch(file: Path) -> NoReturn:
    raise ArtifactError(
        f"{file} is in torch's old form, which is no archive that can be checked before it is read: write it "
        "anew with torch.save(torch.load(<file>, weights_only=True), <file>)"
    )


def _refuse_pointer(file: Path) -> NoReturn:
    raise ArtifactError(f"{file} is a Git LFS pointer, not yet the file itself: run git lfs pull there")


_READERS = {
    "safetensors": _read_safetensors,
    "shards": _read_shards,
    "torch": _read_torch,
    "tensorflow": _read_tensorflow,
    "old torch": _refuse_old_torch,
    "pointer": _refuse_pointer,
}


def _beside(file: Path, dialect: Dialect) -> dict[str, Any]:
    """The shape under our names that transformers' config.json or OpenAI's hparams.json beside it says.

    Beside the tensors of others a file of such a name may be anything.
    """
    config, hparams = file.with_name("config.json"), file.with_name("hparams.json")
    if dialect.name == HUGGINGFACE.name and config.is_file():
        return read_huggingface_settings(_json(config))
    if dialect is OPENAI and hparams.is_file():
        return OPENAI.read_sizes(_json(hparams))
    return {}


def _json(file: Path) -> dict[str, Any]:
    return _json_object(read_bytes(file, MAX_JSON, follow=True), file)


def _json_object(content: bytes, file: Path) -> dict[str, Any]:
    try:
        result = parse_json(content, object_pairs_hook=without_duplicates)
    except ValueError as error:
        raise ArtifactError(f"{file} is damaged: it is no JSON ({error})") from error
    if not isinstance(result, dict):
        raise ArtifactError(f"{file} is damaged: it is no JSON object")
    return result
