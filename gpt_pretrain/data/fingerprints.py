"""What a file holds, as a short digest that is computed once: it is kept with the file's size and time.

A file whose size, time of change and inode are as they were is taken to hold what it held, as git does it.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpt_pretrain.errors import InfrastructureError

SMALL = 1 << 20  # bytes; below this, reading the file is as fast as looking up what it held


def remembered(
    file: Path, cache: Path, kind: str, compute: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    """`compute(file)`, or what it gave when the file was as it is now. `kind` tells computations apart."""
    stat = file.stat()
    if stat.st_size < SMALL:
        return compute(file)
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    name = hashlib.blake2b(f"{kind}/{file.resolve()}".encode("utf-8", "surrogateescape"), digest_size=16)
    note = cache / "fingerprints" / f"{name.hexdigest()}.json"
    try:
        known = json.loads(note.read_bytes())
        if known["state"] == state:
            return known["value"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # never seen, or cut short: computed again
    value = compute(file)
    make_cache_folder(note.parent)
    partial = note.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps({"state": state, "value": value}))
    partial.replace(note)
    return value


def make_cache_folder(folder: Path) -> None:
    """Raises InfrastructureError where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InfrastructureError(
            f"the cache folder {folder} cannot be written: {error.strerror}\n"
            "set data.cache_dir=<a folder that can>"
        ) from error


def content_digest(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        # SHA-256, which processors have instructions for: twice as fast as BLAKE2
        return {"digest": hashlib.file_digest(stream, "sha256").hexdigest()[:32]}


def combined(*parts: object) -> str:
    """One digest of plain values."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
