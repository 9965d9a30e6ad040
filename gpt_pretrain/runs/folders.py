"""Run folders and the checkpoints in them: which there are, which are sound, which one to go on from.

Imports no torch, so that finding out what to resume costs nothing.
"""

import hashlib
from collections.abc import Collection
from pathlib import Path, PureWindowsPath
from typing import Any

from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.runs.foreign import check_folder, read_json

MANIFEST = "manifest.json"


def verify(folder: Path, *, but: Collection[str] = ()) -> None:
    """Compare every file with the manifest, but those that will not be read.

    Raises ArtifactError that names the first difference.
    """
    try:
        check_folder(folder)
        for name, expected in read_json(folder / MANIFEST).items():
            if Path(name).name != name:
                raise ArtifactError(f"{folder}: its manifest points outside the folder: {name}")
            if not (folder / name).is_file():
                raise ArtifactError(f"{folder} is damaged: {name} is missing")
            if name not in but and fingerprint(folder / name) != expected:
                raise ArtifactError(f"{folder} is damaged: {name} is not what its manifest says")
    except OSError as error:
        raise ArtifactError(f"{folder} is no checkpoint: it cannot be read ({error})") from error


def find_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run's folder, newest first; not yet verified."""
    found = (run / "checkpoints").glob("step-*")
    # By length first: beyond eight digits names no longer sort as their steps do.
    return sorted(found, key=lambda folder: (len(folder.name), folder.name), reverse=True)


def newest_valid(run: Path) -> tuple[Path | None, list[str]]:
    """A run's newest checkpoint whose manifest holds, and a line for each damaged one that was passed over.

    None where the run has no checkpoint yet. Raises ArtifactError where all are damaged.
    """
    passed_over: list[str] = []
    for folder in find_checkpoints(run):
        try:
            verify(folder)
            return folder, passed_over
        except ArtifactError as error:
            passed_over.append(str(error))
    if passed_over:
        raise ArtifactError(f"{run} has no checkpoint that can be used\n" + "\n".join(passed_over[:2]))
    return None, []


def find_checkpoint(path: Path, setting: str = "checkpoint") -> Path:
    """A run's best checkpoint, else its newest; any other `path` is weights already. Raises InputError."""
    if not path.exists():
        raise InputError(f"{setting}={path}: no such folder or file")
    if not is_run(path):
        return path
    check_folder(path)
    best = _best_checkpoint(path)
    if best is not None and (best / MANIFEST).is_file():
        return best
    newest, _ = newest_valid(path)
    if newest is None:
        raise InputError(f"{setting}={path} is a run without a checkpoint")
    return newest


def _best_checkpoint(run: Path) -> Path | None:
    """What summary.json calls the best; None where it says nothing that can be read."""
    try:
        # Of the path only the name counts: the run may have been moved, or come from another system.
        best = PureWindowsPath(read_json(run / "summary.json")["best_checkpoint"])  # which takes both slashes
        return run / "checkpoints" / best.name
    except (ArtifactError, TypeError, KeyError):
        return None


def is_run(path: Path) -> bool:
    """Whether a folder holds a run, even one that has saved nothing yet."""
    return any((path / name).is_dir() for name in ("checkpoints", ".hydra"))


def find_runs(outputs: Path) -> list[Path]:
    """Run folders below `outputs`, newest first: those that have settings or checkpoints."""
    runs = {file.parent for pattern in ("checkpoints", ".hydra") for file in outputs.rglob(pattern)}
    return sorted(runs, key=lambda run: run.stat().st_mtime, reverse=True)


def fingerprint(file: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, as a manifest holds them."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}
