"""A model's weights in other programs' formats: a folder each, written whole or not at all."""

import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.foreign import json_text
from gpt_pretrain.tokenizer import Tokenizer, tokenizer_files
from gpt_pretrain.weights.bundle import write_bundle
from gpt_pretrain.weights.dialects import BOOK, HUGGINGFACE, OPENAI, Dialect, as_theirs
from gpt_pretrain.weights.huggingface import files_beside
from gpt_pretrain.weights.safetensors_file import write_safetensors

FORMATS = {"huggingface": HUGGINGFACE, "book": BOOK, "openai": OPENAI}


def write_weights(
    out: Path,
    format: str,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    tokenizer: Tokenizer,
    max_shard_bytes: int | None = None,
    *,
    card: str = "",
) -> None:
    """Write the folder `out`, its tokenizer in any format, `card` as the README.md of format=huggingface.

    Raises InputError where the format cannot hold the model.
    """
    if format == "openai" and not config.tie_weights:
        raise InputError(
            "format=openai has no output head of its own, as this model does: use huggingface or book"
        )
    if format == "openai" and max_shard_bytes:
        raise InputError("max_shard_mb does not apply to format=openai: it is always one data file")
    with _whole(out) as folder:
        if format == "openai":
            _write_openai(folder, state, config, tokenizer)
            return
        metadata = {"format": "pt"}
        if format == "book":
            metadata["gpt_pretrain"] = json_text(dataclasses.asdict(config))
            _write_files(folder, tokenizer_files(tokenizer))
        else:
            _write_files(folder, files_beside(config, tokenizer) | {"README.md": card.encode()})
        _write_shards(folder, their_tensors(state, config, FORMATS[format]), metadata, max_shard_bytes)


def their_tensors(state: Mapping[str, Tensor], config: ModelConfig, dialect: Dialect) -> dict[str, Tensor]:
    """Our parameters under a dialect's names, with what it always has: zero biases, tied head, masks."""
    tensors: dict[str, Tensor] = {}
    shape = config
    if dialect is BOOK:
        shape = dataclasses.replace(config, tie_weights=False)  # its head is a tensor of its own
    for ours, names in dialect.names(shape).items():
        tensors |= dict(zip(names, as_theirs(state[ours], dialect, ours, len(names)), strict=True))
    for index in range(config.n_layers):
        prefix = dialect.block.format(i=index)
        if dialect is BOOK:
            n = config.context_length
            # A buffer of the book's model, which its load_state_dict asks for.
            tensors[f"{prefix}att.mask"] = torch.ones(n, n, dtype=torch.bool).triu(1)
        elif not config.qkv_bias:
            tensors[f"{prefix}{dialect.inside['att.qkv'][0]}{dialect.kinds[1]}"] = torch.zeros(
                3 * config.emb_dim
            )
    return tensors


def _write_openai(
    folder: Path, state: Mapping[str, Tensor], config: ModelConfig, tokenizer: Tokenizer
) -> None:
    write_bundle(folder / "model.ckpt", their_tensors(state, config, OPENAI))
    # What TensorFlow's latest_checkpoint reads.
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n',
        encoding="utf-8",
    )
    _write_json(folder / "hparams.json", OPENAI.write_sizes(config))
    files = tokenizer_files(tokenizer)
    _write_files(folder, files)
    for theirs, ours in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        if ours in files:
            (folder / theirs).write_bytes(files[ours])


def _write_shards(
    folder: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str], max_bytes: int | None
) -> None:
    """One `model.safetensors`, or files of at most `max_bytes` (or one larger tensor) and their index."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if max_bytes and shards[-1] and size + tensor.nbytes > max_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        write_safetensors(folder / "model.safetensors", tensors, metadata)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / file, shard, metadata)
        weight_map |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(folder / "model.safetensors.index.json", index)


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A sibling to write into, which becomes `out` if all goes well. Raises InputError."""
    given, out = out, Path(os.path.realpath(out))
    if out == Path.cwd():
        raise InputError(f"out={given} is the folder that this was started in: give a new folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"out={given} exists already: give a new folder")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise InputError(f"out={given} cannot be made ({error.strerror}): give another folder") from error
    try:
        yield partial
        if out.exists():
            # It was empty when this began, and rmdir takes no other.
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json_text(content, indent=2) + "\n", encoding="utf-8")
