"""A tensor that lies in a file: its type and shape are known and checked, its numbers are not yet read."""

import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.foreign import open_plain


@dataclass(frozen=True, slots=True)
class Stored:
    """What is known of a tensor in a file, and how its numbers are read."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    release: Callable[[], None] = lambda: None  # give back the memory that reading took, once copied


def check_inside(file: Path) -> None:
    """Raise ArtifactError for a link that leads out of its folder, other than into the hub's own cache, where
    `snapshots/<revision>/` links to `blobs/`.
    """
    folder, real = file.parent.resolve(), file.resolve()
    blobs = folder.parent.parent / "blobs"
    if real.parent != folder and not (folder.parent.name == "snapshots" and real.parent == blobs):
        raise ArtifactError(f"{file} leads out of its folder, to {real}: give that path itself")


def check_finite(file: Path, name: str, tensor: Tensor) -> None:
    """Raise ArtifactError for numbers that are none, in one pass and no copy."""
    if not tensor.is_floating_point() or math.isfinite(float(tensor.sum(dtype=torch.float32))):
        return
    if not bool(tensor.isfinite().all()):  # a sum may leave the range where no number does
        raise ArtifactError(
            f"{file}: {name} holds NaN or infinity: training had diverged before these weights were saved"
        )


def map_file(file: Path) -> mmap.mmap:
    """The file's bytes, read from disk where they are touched; writing to them changes no file."""
    try:
        with open_plain(file, follow=True) as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
            mapped.madvise(mmap.MADV_WILLNEED)  # the disk begins to read while headers are checked
            return mapped
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file} cannot be read: {error}") from error


def release(mapped: mmap.mmap, begin: int, size: int) -> None:
    """Forget the pages that lie wholly inside these bytes: they are read again if touched again."""
    # Up to a whole page at the front, down to one at the end: the others hold neighbours' bytes.
    first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (begin + size) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if length > 0:
        mapped.madvise(mmap.MADV_DONTNEED, first, length)


def view(mapped: mmap.mmap | bytes, dtype: torch.dtype, shape: tuple[int, ...], begin: int) -> Tensor:
    """A tensor of the mapped bytes from `begin`, without copying where the bytes are aligned."""
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    if begin % dtype.itemsize == 0:
        return torch.frombuffer(mapped, dtype=dtype, count=count, offset=begin).view(shape)
    span = bytearray(mapped[begin : begin + count * dtype.itemsize])
    return torch.frombuffer(span, dtype=dtype).view(shape)
