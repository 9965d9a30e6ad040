"""TensorFlow's checkpoint, the "tensor bundle", read and written without TensorFlow.

`<prefix>.index` is a table from a tensor's name to its type, shape, place and checksum; the numbers lie
little-endian in `<prefix>.data-00000-of-00001` (tensorflow/core/protobuf/tensor_bundle.proto and
core/util/tensor_bundle). Files are mapped, and a tensor's checksum is compared when it is read.
"""

import itertools
import math
import mmap
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.foreign import read_bytes
from gpt_pretrain.weights.crc32c import crc32c, masked
from gpt_pretrain.weights.protobuf import (
    MalformedError,
    bytes_field,
    fixed32_field,
    number_field,
    read_fields,
)
from gpt_pretrain.weights.stored import Stored, check_inside, map_file, view
from gpt_pretrain.weights.table import MAGIC, read_table, write_table

MAX_INDEX = 1 << 20  # bytes: GPT-2 XL's takes 30 thousand
MAX_DIMENSIONS = 8
MAX_SHARDS = 1024

DTYPES = {  # tensorflow/core/framework/types.proto
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    17: torch.uint16,
    19: torch.float16,
    22: torch.uint32,
    23: torch.uint64,
}
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # text that Keras adds; no tensor of a model


def read_bundle(index: Path) -> dict[str, Stored]:
    """Every tensor of the checkpoint whose index is `index`. Raises ArtifactError."""
    try:
        return _read(index, read_bytes(index, MAX_INDEX, follow=True))
    except (MalformedError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{index} is damaged: {error}") from error


def looks_like_index(end: bytes) -> bool:
    """Whether a file that ends so is a bundle's index."""
    return end[-8:] == MAGIC


def write_bundle(prefix: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `<prefix>.index` and its one data file; the tensors are float32."""
    # The header: one data file; little-endian is 0 and so not written; version 1 of its producer.
    offset, entries = 0, [(b"", number_field(1, 1) + bytes_field(3, number_field(1, 1)))]
    with Path(f"{prefix}.data-00000-of-00001").open("wb") as stream:
        for name, tensor in tensors.items():
            tensor = tensor.contiguous()
            assert tensor.dtype == torch.float32
            content = tensor.numpy().reshape(-1).view(np.uint8).data
            stream.write(content)
            shape = b"".join(bytes_field(2, number_field(1, size)) for size in tensor.shape)
            # Type 1 is float32; field 3, the data file, is 0 and so not written.
            entry = number_field(1, 1) + bytes_field(2, shape) + number_field(4, offset)
            entry += number_field(5, len(content)) + fixed32_field(6, masked(crc32c(content)))
            entries.append((name.encode(), entry))
            offset += len(content)
    # By name, since a table is in the order of its keys; the header's is empty, so it stays first.
    Path(f"{prefix}.index").write_bytes(write_table(sorted(entries)))


def _read(index: Path, data: bytes) -> dict[str, Stored]:
    entries = read_table(data)
    shards = _shards(index, entries)
    # An empty file cannot be mapped.
    mapped = [map_file(shard) if shard.stat().st_size else b"" for shard in shards]
    tensors: dict[str, Stored] = {}
    spans: list[tuple[int, int, int]] = []
    for key, value in entries:
        name = key.decode()
        if name == OBJECT_GRAPH:
            continue
        dtype, shape, shard, begin, size, checksum = _entry(name, value)
        if not shard < len(shards) or begin + size > len(mapped[shard]):
            raise MalformedError(f"{name} lies outside the data file")
        if size:  # an empty tensor shares no byte, wherever it lies
            spans.append((shard, begin, begin + size))
        tensors[name] = Stored(
            dtype, shape, partial(_numbers, index, name, mapped[shard], dtype, shape, begin, checksum)
        )
    spans.sort()
    for before, after in itertools.pairwise(spans):
        if before[0] == after[0] and after[1] < before[2]:
            raise MalformedError("two tensors share bytes")
    return tensors


def _shards(index: Path, entries: Iterator[tuple[bytes, bytes]]) -> list[Path]:
    """The data files, which the header, the first entry, counts. Their names are ours, not the file's."""
    key, value = next(entries, (b"none", b""))
    if key:
        raise MalformedError("it does not begin with a header")
    header = dict(read_fields(value))
    n_shards = header.get(1, 0)
    if header.get(2, 0) != 0:
        raise MalformedError("its numbers are big-endian, which we do not read")
    if not isinstance(n_shards, int) or not 1 <= n_shards <= MAX_SHARDS:
        raise MalformedError("it has no sound number of data files")
    prefix = index.name.removesuffix(".index")
    shards = [index.with_name(f"{prefix}.data-{i:05d}-of-{n_shards:05d}") for i in range(n_shards)]
    for shard in shards:
        if not shard.is_file():
            raise ArtifactError(f"{index} has no data file beside it: {shard.name} is missing")
        check_inside(shard)
    return shards


def _entry(name: str, value: bytes) -> tuple[torch.dtype, tuple[int, ...], int, int, int, int]:
    """Type, shape, shard, first byte, size in bytes and checksum."""
    fields: dict[int, int | bytes] = {}
    for field, content in read_fields(value):
        if field in fields or field not in (1, 2, 3, 4, 5, 6):
            raise MalformedError(f"{name} has a field {field} twice, or one that we do not read")
        fields[field] = content
    numbers = [fields.get(field, 0) for field in (1, 3, 4, 5, 6)]  # zeros are not written
    shape = _shape(name, fields.get(2, b""))
    dtype_number, shard, begin, size, checksum = (n if isinstance(n, int) else -1 for n in numbers)
    if dtype_number not in DTYPES:
        raise MalformedError(f"{name} has the type {dtype_number}, which we do not read")
    dtype = DTYPES[dtype_number]
    if min(shard, begin, size, checksum) < 0 or math.prod(shape) * dtype.itemsize != size:
        raise MalformedError(f"{name} of shape {shape} cannot have {size} bytes")
    return dtype, shape, shard, begin, size, checksum


def _shape(name: str, content: int | bytes) -> tuple[int, ...]:
    shape: list[int] = []
    # A number where the shape belongs is refused below, as a field 0.
    for field, dimension in read_fields(content) if isinstance(content, bytes) else [(0, b"")]:
        sizes = dict(read_fields(dimension)) if field == 2 and isinstance(dimension, bytes) else {}
        size = sizes.get(1, 0)
        if field != 2 or not isinstance(size, int) or size >= 1 << 48 or len(shape) == MAX_DIMENSIONS:
            raise MalformedError(f"{name} has no sound shape")
        shape.append(size)
    return tuple(shape)


def _numbers(
    index: Path,
    name: str,
    mapped: mmap.mmap | bytes,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    begin: int,
    checksum: int,
) -> Tensor:
    size = math.prod(shape) * dtype.itemsize
    # A view: slicing a map would copy the tensor.
    if masked(crc32c(memoryview(mapped)[begin : begin + size])) != checksum:
        raise ArtifactError(f"{index} is damaged: {name} in its data file is not what its checksum says")
    return view(mapped, dtype, shape, begin)
