"""What a file holds, as a short digest that is computed once: it is kept with the file's size and time.

A file whose size, times of change and inode are as they were is taken to hold what it held, as git does it.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpt_pretrain.data.notes import keep_note, read_note

SMALL = 1 << 20  # bytes; below this, reading the file is as fast as looking up what it held


def remembered(
    file: Path, cache: Path, kind: str, compute: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    """`compute(file)`, or what it gave when the file was as it is now. `kind` tells computations apart."""
    stat = file.stat()
    if stat.st_size < SMALL:
        return compute(file)
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    name = hashlib.blake2b(f"{kind}/{file.resolve()}".encode("utf-8", "surrogateescape"), digest_size=16)
    note = cache / "fingerprints" / f"{name.hexdigest()}.json"
    known = read_note(note)
    if known is not None and known["state"] == state:
        return known["value"]
    value = compute(file)
    keep_note(note, {"state": state, "value": value})
    return value


def content_digest(file: Path) -> dict[str, Any]:
    """SHA-256 of the content, its first half."""
    with file.open("rb") as stream:
        # SHA-256, which processors have instructions for: twice as fast as BLAKE2
        return {"digest": hashlib.file_digest(stream, "sha256").hexdigest()[:32]}
