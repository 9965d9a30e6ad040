"""Tokens on disk: raw shards of a stream, with the places where its documents begin and checksums of all."""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpt_pretrain.data.tokens import Span, Tokens

FORMAT = 2
SHARD_TOKENS = 1 << 26  # a shard is closed by the batch that fills it
INDEX = "index.json"


class StreamWriter:
    """Appends tokens to the shards of one stream, in `folder`. `state` says what has been written so far;
    files are cut back to it, so a writer made from an older state goes on from there.
    """

    def __init__(self, folder: Path, name: str, dtype: str, state: dict[str, Any] | None = None) -> None:
        self.folder, self.name, self.dtype = folder, name, np.dtype(dtype)
        self.state = state or {
            "shards": [],
            "tokens": 0,
            "documents": {"file": f"{name}-documents.bin", "n": 0, "crc32": 0},
            "characters": 0,
            "bytes": 0,
            "written": 0,
            "has_text": False,
        }
        self._files: dict[str, Any] = {}
        for entry, itemsize in _entries(self.state, self.dtype):
            path = folder / entry["file"]
            path.touch()
            os.truncate(path, entry["n"] * itemsize)

    def append(self, tokens: np.ndarray, documents: np.ndarray) -> None:
        """`documents` are the places in `tokens` where documents begin, each after an end-of-text token; a
        stream itself does not begin with one.
        """
        if self.state["tokens"] == 0 and len(documents) and documents[0] == 1:
            tokens, documents = tokens[1:], documents - 1
        if len(documents):
            self._write(self.state["documents"], (documents + self.state["tokens"]).astype(np.int64))
        if len(tokens):
            shards = self.state["shards"]
            if not shards or shards[-1]["n"] >= SHARD_TOKENS:
                shards.append({"file": f"{self.name}-{len(shards):05d}.bin", "n": 0, "crc32": 0})
            self._write(shards[-1], tokens.astype(self.dtype))
            self.state["tokens"] += len(tokens)

    def sync(self) -> None:
        """Bring what has been written to the disk."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        self._files.clear()

    def _write(self, entry: dict[str, Any], content: np.ndarray) -> None:
        name = entry["file"]
        if name not in self._files:
            # what lies there before the first token was never committed
            self._files[name] = (self.folder / name).open("ab" if entry["n"] else "wb")
        data = content.data.cast("B")
        self._files[name].write(data)
        entry["crc32"] = zlib.crc32(data, entry["crc32"])
        entry["n"] += len(content)


def damage(folder: Path, index: dict[str, Any], *, checksums: bool, unfinished: bool = False) -> str | None:
    """The first file that is not what its index says, or None; of an unfinished build it may hold more.

    Sizes cost nothing; checksums read everything, about 1 GB/s.
    """
    for stream in index["streams"].values():
        for entry, itemsize in _entries(stream, np.dtype(index["dtype"])):
            path, wanted = folder / entry["file"], entry["n"] * itemsize
            size = path.stat().st_size if path.is_file() else -1
            if size < wanted or (size > wanted and not unfinished):
                return entry["file"]
            if checksums and _crc32(path) != entry["crc32"]:
                return entry["file"]
    return None


def stream_tokens(folder: Path, index: dict[str, Any], name: str) -> Tokens:
    """All tokens of a stream, mapped."""
    shards = index["streams"][name]["shards"]
    return Tokens([Span(file=folder / s["file"], dtype=index["dtype"], n=s["n"]) for s in shards])


def stream_documents(folder: Path, index: dict[str, Any], name: str) -> np.ndarray:
    """Where each document of a stream begins, in tokens."""
    entry = index["streams"][name]["documents"]
    return Tokens([Span(file=folder / entry["file"], dtype="<i8", n=entry["n"])])[:]


def _entries(state: dict[str, Any], dtype: np.dtype) -> Iterator[tuple[dict[str, Any], int]]:
    """The files of a stream, each with the bytes of an item."""
    for shard in state["shards"]:
        yield shard, dtype.itemsize
    yield state["documents"], 8


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            value = zlib.crc32(chunk, value)
    return value
