"""What a file from elsewhere may be: plain, of bounded size, parsed into plain values.

A run, a checkpoint, a tokenizer or a sweep may have been downloaded: whatever opens a file of one does it
here. Nothing in it is executed, resolved or followed, and it costs its size and `SPARE` bytes at most.
"""

import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from gpt_pretrain.errors import ArtifactError

SPARE = 64 << 20  # bytes
SMALL = 4 << 20  # bytes: settings, manifests and the like
LARGE = 256 << 20  # bytes: a tokenizer's vocabulary
VALUE = 60  # bytes that Python takes for one value of JSON, about: an empty list is two letters long
DEEPEST = 16  # levels of nested settings
# Where the system has them: no link is followed, no pipe waited for, no line end translated.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_OPEN = os.O_RDONLY | _NO_LINK | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

# Folders that other programs keep beside ours, with links of their own: nothing here looks into them.
OF_OTHERS = ("wandb", ".submitit")


def check_folder(folder: Path) -> None:
    """Raise ArtifactError for the first thing in `folder`, at any depth, that is neither file nor folder.

    A link would be read or written through, a pipe waits for ever.
    """
    waiting = [str(folder)]
    while waiting:
        for entry in _entries(waiting.pop()):
            is_folder = entry.is_dir(follow_symlinks=False)
            if not is_folder and not entry.is_file(follow_symlinks=False) and os.path.lexists(entry.path):
                what = "a link" if entry.is_symlink() else "no plain file"
                raise ArtifactError(
                    f"{entry.path} is {what}, and is not followed: "
                    "a run's folder holds its own files; remove it, or put the file itself there"
                )
            if is_folder and entry.name not in OF_OTHERS:
                waiting.append(entry.path)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:  # a living run has removed it meanwhile
        return []


def open_plain(file: Path, *, follow: bool = False) -> IO[bytes]:
    """A plain file, to be read. With `follow` it may be a link: its path was typed here, or a hub's cache has
    been asked. Raises ArtifactError for any other kind, OSError where it cannot be opened.
    """
    stream = os.fdopen(os.open(file, _OPEN & ~_NO_LINK if follow else _OPEN), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise ArtifactError(f"{file} is no plain file: a device or a pipe may have no end")
    return stream


def read_bytes(file: Path, at_most: int = SMALL, *, follow: bool = False) -> bytes:
    """Content of a plain file. Raises ArtifactError for any other kind, or more than `at_most` bytes."""
    try:
        with open_plain(file, follow=follow) as stream:
            content = read_at_most(stream, at_most)
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error.strerror}") from error
    if len(content) > at_most:
        raise ArtifactError(f"{file} has more than the {at_most:,} bytes that such a file may have")
    return content


def read_at_most(stream: IO[bytes], at_most: int) -> bytes:
    """The whole of a file, or a byte more than it may have. No more memory is asked for than the file has."""
    return stream.read(min(at_most, os.fstat(stream.fileno()).st_size) + 1)


def parse_json(content: bytes | str, **options: Any) -> Any:
    """Any JSON value. Raises ValueError for what is none, too deep, or larger in memory than it may be."""
    most = (SPARE + len(content)) // VALUE
    n_values = _count_values(content)
    if n_values > most:  # in a text they are none
        n_values = _count_values(_without_texts(content))
    if n_values > most:
        raise ValueError(f"it has {n_values:,} values, too many for its size")
    try:
        return json.loads(content, **options)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def is_count(value: Any) -> bool:
    """Whether it counts something, in 64 bits: true is an int to Python, and no count."""
    return type(value) is int and 0 <= value < 2**63


def is_number(value: Any) -> bool:
    """Whether it is one that a computation can begin with, which neither NaN nor 10**400 is."""
    return math.isfinite(value) if type(value) is float else type(value) is int and abs(value) < 2**63


def _count_values(content: bytes | str) -> int:
    """At least so many as there are."""
    marks: tuple[Any, ...] = (",", "[", "{") if isinstance(content, str) else (b",", b"[", b"{")
    return sum(content.count(mark) for mark in marks)


_TEXT = r'"[^"\\]*(?:\\.[^"\\]*)*"'


def _without_texts(content: Any) -> Any:
    return re.sub(
        _TEXT if isinstance(content, str) else _TEXT.encode(), content[:0], content, flags=re.DOTALL
    )


def read_json(file: Path, at_most: int = SMALL) -> dict[str, Any]:
    """A JSON object. Raises ArtifactError."""
    try:
        content = parse_json(read_bytes(file, at_most))
    except ValueError as error:
        raise ArtifactError(f"{file} cannot be read: {error}") from error
    return _mapping(content, file)


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML mapping of plain values: no anchors, so that nothing multiplies. Raises ArtifactError."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = read_bytes(file).decode()
        depth = 0
        # Events first, which build nothing: anchors would multiply, nesting recurse.
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise ArtifactError(f"{file} has YAML anchors, which settings need not have")
            opens = isinstance(event, yaml.CollectionStartEvent)
            depth += opens - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ArtifactError(f"{file} is nested more than {DEEPEST} levels deep")
        content = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    return _mapping(content, file)


def json_text(content: Any, **options: Any) -> str:
    """JSON as every program reads it. Raises ValueError for a number that is none, which Python's own calls
    NaN or Infinity, words that JSON does not have.
    """
    return json.dumps(content, allow_nan=False, **options)


def to_yaml(content: Mapping[str, Any]) -> str:
    """Plain values as `read_yaml` reads them back."""
    return yaml.dump(dict(content), Dumper=_WithoutAnchors, sort_keys=False)


class _WithoutAnchors(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _mapping(content: Any, file: Path) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ArtifactError(f"{file} is no mapping of names to values")
    return content
