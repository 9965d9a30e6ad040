"""Token ids as one long sequence, wherever they lie: in shards, in other programs' files, in memory."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(kw_only=True, slots=True, frozen=True)
class Span:
    """Tokens in a file: `n` of `dtype` from byte `offset`."""

    file: Path
    dtype: str
    n: int
    offset: int = 0


class Tokens:
    """The tokens of spans and arrays, one after another. Files are mapped, not read, and each process that
    gets a copy maps them anew.
    """

    def __init__(self, parts: list[Span | np.ndarray]) -> None:
        self.parts = [part for part in parts if _length(part)]
        self._ends = np.cumsum([_length(part) for part in self.parts], dtype=np.int64)
        self._maps: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.parts else 0

    def __getitem__(self, place: slice) -> np.ndarray:
        start, stop, _ = place.indices(len(self))
        return self.read(start, stop)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": None}

    def read(self, start: int, stop: int) -> np.ndarray:
        """Ids of the tokens from `start` up to `stop`."""
        maps = self.maps
        part = int(np.searchsorted(self._ends, start, side="right"))
        pieces = []
        while start < stop:
            begin = int(self._ends[part]) - len(maps[part])
            end = min(stop, int(self._ends[part]))
            pieces.append(maps[part][start - begin : end - begin])
            start, part = end, part + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.uint16), *pieces])

    def stretches(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Ids (B, length), int64, of the stretches that begin at `starts` (B,)."""
        batch = np.empty((len(starts), length), np.int64)
        # A stretch lies together: faster than one index a token.
        for row, start in enumerate(starts.tolist()):
            batch[row] = self.read(start, start + length)
        return batch

    def cut(self, start: int, stop: int) -> "Tokens":
        """The tokens from `start` up to `stop`, without reading them."""
        parts: list[Span | np.ndarray] = []
        for part, end in zip(self.parts, self._ends.tolist(), strict=True):
            begin = end - _length(part)
            first, last = max(start, begin) - begin, min(stop, end) - begin
            if first < last:
                parts.append(_part(part, first, last))
        return Tokens(parts)

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.parts + other.parts)

    @property
    def maps(self) -> list[np.ndarray]:
        if self._maps is None:
            self._maps = [_map(part) for part in self.parts]
        return self._maps


def _length(part: Span | np.ndarray) -> int:
    return part.n if isinstance(part, Span) else len(part)


def _part(part: Span | np.ndarray, first: int, last: int) -> Span | np.ndarray:
    if isinstance(part, Span):
        return replace(part, n=last - first, offset=part.offset + first * np.dtype(part.dtype).itemsize)
    return part[first:last]


def _map(part: Span | np.ndarray) -> np.ndarray:
    if isinstance(part, Span):
        # np.memmap's own class makes every slice ten times slower than a plain array's
        return np.memmap(part.file, part.dtype, "r", part.offset, (part.n,)).view(np.ndarray)
    return part
