"""Small facts on disk, each with a digest of its own, so that a damaged one is taken for none."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gpt_pretrain.errors import InfrastructureError


def combined(*parts: object) -> str:
    """One digest of plain values."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def read_note(file: Path) -> Any:
    """What `write_note` left there; None where there is nothing or it is damaged."""
    try:
        digest, content = json.loads(file.read_bytes())
    except (OSError, ValueError, TypeError):
        return None
    return content if digest == combined(content) else None


def write_note(file: Path, content: object) -> None:
    """Whole or not at all, and on the disk when this returns."""
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump([combined(content), content], stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)


def keep_note(file: Path, content: object) -> None:
    """`write_note`, where the cache can be written: elsewhere the fact is worked out again each time. Two
    processes may do so at once: what one of them spoils is taken for none.
    """
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_note(file, content)


@contextmanager
def using(folder: Path) -> Iterator[None]:
    """Turn an OSError into an InfrastructureError that says that the cache's `folder` cannot be used."""
    try:
        yield
    except OSError as error:
        raise InfrastructureError(
            f"the cache folder {folder} cannot be used: {error.strerror or error}\n"
            "make room, or set data.cache_dir=<a folder that can>"
        ) from error
