"""A safetensors file, its header checked in full before a tensor of it exists.

The safetensors library lets through a name given twice and any number of dimensions, and says nothing about
what is no tensor of a model. So the header is parsed here (format: huggingface.co/docs/safetensors), and the
rest is mapped.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.foreign import json_text, open_plain, parse_json
from gpt_pretrain.weights.stored import Stored, map_file, release, view

MAX_HEADER = 2 << 20  # bytes: GPT-2 XL needs 60 thousand; parsed, they may take thirty times as many
MAX_DIMENSIONS = 8

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_safetensors(file: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """Every tensor of `file`, and its metadata. Raises ArtifactError."""
    header, first = _read_header(file)
    size = file.stat().st_size - first
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ArtifactError(f"{file} is damaged: its metadata is more than names and texts")
    entries = {name: _entry(file, name, entry) for name, entry in header.items()}
    end = 0
    # The format allows no hole and no overlap: each tensor begins where the one before ends.
    for name, (_, _, begin, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != end:
            kind = "shares bytes with another tensor" if begin < end else "leaves bytes before it unused"
            raise ArtifactError(f"{file} is damaged: {name!r} {kind}")
        end = stop
    if end != size:
        kind = "is cut short" if end > size else "has bytes that belong to no tensor"
        raise ArtifactError(f"{file} {kind}: its header describes {end} bytes of tensors, it holds {size}")
    mapped = map_file(file)

    def stored(dtype: torch.dtype, shape: tuple[int, ...], begin: int, stop: int) -> Stored:
        place = first + begin
        return Stored(
            dtype,
            shape,
            lambda: view(mapped, dtype, shape, place),
            lambda: release(mapped, place, stop - begin),
        )

    return {name: stored(*entry) for name, entry in entries.items()}, metadata


def looks_like_safetensors(start: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that begins with `start` claims to be one."""
    return len(start) > 8 and start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= size - 8


def _read_header(file: Path) -> tuple[dict[str, Any], int]:
    """The header and where the tensors begin."""
    try:
        with open_plain(file, follow=True) as stream:
            length = int.from_bytes(stream.read(8), "little")  # bytes of JSON that follow
            if length > min(MAX_HEADER, file.stat().st_size - 8):
                raise ArtifactError(
                    f"{file} is damaged: its header claims {length} bytes, which it cannot have"
                )
            header = parse_json(stream.read(length).decode(), object_pairs_hook=without_duplicates)
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ArtifactError(f"{file} is damaged: its header is no JSON object ({error})") from error
    if not isinstance(header, dict):
        raise ArtifactError(f"{file} is damaged: its header is no JSON object")
    return header, 8 + length


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json's `object_pairs_hook`: json itself keeps the last of equal names. Raises ValueError."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name comes twice")
    return result


def _entry(file: Path, name: str, entry: Any) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    """Type, shape, first byte and the byte after the last of one tensor."""
    try:
        dtype = DTYPES[entry["dtype"]]
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{file}: {name!r} has no type, shape and place that we know ({error!r})"
        ) from error
    numbers = [*shape, begin, end] if isinstance(shape, list) else [None]
    # By type, since JSON's true is an int to isinstance.
    if len(numbers) > MAX_DIMENSIONS + 2 or not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers):
        raise ArtifactError(f"{file} is damaged: {name!r} has no sound shape or place")
    n_bytes = math.prod(shape) * dtype.itemsize
    if end - begin != n_bytes:
        raise ArtifactError(
            f"{file} is damaged: {name!r} of shape {tuple(shape)} needs {n_bytes} bytes, "
            f"its place has {end - begin}"
        )
    return dtype, tuple(shape), begin, end


def write_safetensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors one after another, as they come; no more than one is copied at a time."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        place = [end, end + tensor.nbytes]
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": place,
        }
        end = place[1]
    text = json_text(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that every float32 lies aligned
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            stream.write(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        stream.flush()
        os.fsync(stream.fileno())
