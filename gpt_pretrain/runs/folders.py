"""Run folders and the checkpoints in them: which there are, which are sound, which one to go on from.

Imports no torch, so that finding out what to resume costs nothing.
"""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.foreign import check_folder, read_json
from gpt_pretrain.runs.state import check_state

log = logging.getLogger(__name__)

MANIFEST, STATE = "manifest.json", "trainer_state.json"
LARGEST_STATE = 64 << 20  # bytes of trainer_state.json
# What every checkpoint of a run holds.
_WHOLE = ("config.json", "model.safetensors", "optimizer.safetensors", "settings.yaml", STATE)
SAVED = ".saved"  # in a run's folder: it had a checkpoint once
ASIDE = ".replaced"  # what a checkpoint is called while another one of its step takes its place


def verify(folder: Path, *, but: Collection[str] = ()) -> None:
    """Compare every file with the manifest, but those that will not be read.

    Raises ArtifactError that names the first difference.
    """
    try:
        check_folder(folder)
        manifest = read_json(folder / MANIFEST)
        for name, expected in manifest.items():
            if Path(name).name != name:
                raise ArtifactError(f"{folder}: its manifest points outside the folder: {name}")
            if not (folder / name).is_file():
                raise ArtifactError(f"{folder} is damaged: {name} is missing")
            if name not in but and fingerprint(folder / name) != expected:
                raise ArtifactError(f"{folder} is damaged: {name} is not what its manifest says")
        for name in _WHOLE:
            if name not in manifest:
                raise ArtifactError(f"{folder} is damaged: its manifest does not list {name}")
    except OSError as error:
        raise ArtifactError(f"{folder} is no checkpoint: it cannot be read ({error})") from error


def find_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run's folder, newest first; not yet verified."""
    # Not what somebody has put beside them: a copy would be the newest for ever.
    steps = {
        folder: int(match[1])
        for folder in (run / "checkpoints").glob("step-*")
        if (match := re.fullmatch(r"step-([0-9]{8,18})", folder.name))
    }
    return sorted(steps, key=lambda folder: steps[folder], reverse=True)


def newest_valid(run: Path) -> tuple[Path | None, list[str]]:
    """A run's newest checkpoint whose manifest holds, and a line for each damaged one that was passed over.

    None where the run has no checkpoint yet. Raises ArtifactError where all are damaged, or gone.
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
    if has_saved(run):
        raise ArtifactError(
            f"{run} has saved checkpoints, and none is left in {run / 'checkpoints'}: put one back, or begin "
            "anew in another folder"
        )
    return None, []


def has_saved(run: Path) -> bool:
    """Whether a run has ever had a checkpoint, still there or not."""
    return bool(find_checkpoints(run)) or (run / SAVED).is_file() or _best_checkpoint(run) is not None


def restore(run: Path) -> None:
    """Put back the checkpoint that a process was killed at replacing. For the owner of the run's folder."""
    for aside in (run / "checkpoints").glob(f".*{ASIDE}"):
        whole = aside.with_name(aside.name.removeprefix(".").removesuffix(ASIDE))
        if not whole.exists():  # killed between the two renames
            aside.rename(whole)


def tidy(run: Path) -> None:
    """Clear away what a killed process left half written or half deleted. For the owner of the run's folder:
    a living one's is its own.
    """
    folder = run / "checkpoints"
    for left in [*folder.glob(".*.partial"), *folder.glob(f".*{ASIDE}")]:
        shutil.rmtree(left, ignore_errors=True)
    for left in [*run.glob(".*.partial")]:
        left.unlink(missing_ok=True)


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint: no longer one from the first moment on. A failure is a warning."""
    gone = checkpoint.with_name(f".{checkpoint.name}.deleted.partial")
    try:
        checkpoint.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        log.warning("%s cannot be deleted: %s", checkpoint, error.strerror or error)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file has the size that the manifest says; nothing is read."""
    try:
        manifest = read_json(checkpoint / MANIFEST)
        return all((checkpoint / name).stat().st_size == said["bytes"] for name, said in manifest.items())
    except (ArtifactError, OSError, KeyError, TypeError):
        return False


def replace(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)


def find_checkpoint(path: Path, setting: str = "checkpoint") -> Path:
    """A run's best checkpoint, else its newest; any other `path` is weights already. Raises InputError."""
    if not path.exists():
        raise InputError(f"{setting}={str(path)[:300]}: no such folder or file")
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
    """What the newest checkpoint knows as the best: also while the run goes on, and after a kill."""
    for checkpoint in filter(is_whole, find_checkpoints(run)):
        try:
            return step_folder(run, read_state(checkpoint)["callbacks"]["Checkpoints"]["best"]["step"])
        except (ArtifactError, TypeError, KeyError):  # an evaluation may not have come yet
            return None
    return None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What training goes on from, its tensors left out. Raises ArtifactError."""
    state = read_json(checkpoint / STATE, LARGEST_STATE)
    check_state(state, checkpoint / STATE)
    return state


def step_folder(run: Path, step: int) -> Path:
    """The checkpoint of a step."""
    return run / "checkpoints" / f"step-{step:08d}"


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
