"""One process at a time in a run's folder."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.foreign import check_folder, json_text, read_json

log = logging.getLogger(__name__)

LOCK, OWNER = ".lock", ".owner.json"


@contextmanager
def owned(folder: Path, setting: str = "hydra.run.dir") -> Iterator[None]:
    """Hold `folder` for this process, from before the first write in it to the end of the last.

    The lock is the kernel's, so it ends with its holder, however that dies. After a refusal in the body, or
    where nothing was written, no trace of it is left. Raises InputError that names the holder, ArtifactError
    for a folder with links in it.
    """
    # The folders that were not there, the innermost first, to be removed again if they stay empty.
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_folder(folder)
        with _held(folder, setting):
            yield
    finally:
        for path in made:
            with suppress(OSError):  # not empty
                path.rmdir()


@contextmanager
def _held(folder: Path, setting: str) -> Iterator[None]:
    file = folder / LOCK
    is_new, refused = not file.exists(), False
    lock = FileLock(file, timeout=0)
    try:
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"{folder} is in use by {_described(_read_owner(folder))}\n"
                f"wait until it has ended, stop it, or give another {setting}"
            ) from error
        _warn_of_another_machine(folder)
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": f"{datetime.now():%F %T}"}
        (folder / OWNER).write_text(json_text(owner) + "\n", encoding="utf-8")
        yield
    except (InputError, ArtifactError):
        refused = True
        raise
    finally:
        if lock.is_locked:
            (folder / OWNER).unlink(missing_ok=True)
            if is_new and (refused or {entry.name for entry in folder.iterdir()} == {LOCK}):
                file.unlink(missing_ok=True)  # while it is held: nobody else can have taken it
            lock.release()


def _read_owner(folder: Path) -> dict[str, Any] | None:
    try:
        return read_json(folder / OWNER)
    except ArtifactError:  # being written at this moment
        return None


def _described(owner: dict[str, Any] | None) -> str:
    if owner is None:
        return "another process"
    pid, host, started = (str(owner.get(key)) for key in ("pid", "host", "started"))
    return f"another process: pid {pid} on {host}, since {started}"


def _warn_of_another_machine(folder: Path) -> None:
    """A holder that died left its note. On this machine the lock has told that it is dead; whether a shared
    file system carries locks from machine to machine, nobody can know.
    """
    before = _read_owner(folder)
    if before is not None and before.get("host") != socket.gethostname():
        log.warning(
            "%s was left without a word by %s: if it still runs there, stop it, "
            "since this file system may not pass on locks from machine to machine",
            folder,
            _described(before),
        )
