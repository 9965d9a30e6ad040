"""Run folders and the checkpoints in them: which there are, which are sound, which one to go on from.

Imports no torch, so that finding out what to resume costs nothing.
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from gpt_pretrain.errors import ArtifactError, InputError

MANIFEST = "manifest.json"
SWEEP = {"-m", "--multirun"}  # what asks for several runs on a command line


def verify(folder: Path, *, but: Collection[str] = ()) -> None:
    """Compare every file with the manifest, but those that will not be read.

    Raises ArtifactError that names the first difference.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        for name, expected in manifest.items():
            if Path(name).name != name:
                raise ArtifactError(f"{folder}: its manifest points outside the folder: {name}")
            if not (folder / name).is_file():
                raise ArtifactError(f"{folder} is damaged: {name} is missing")
            if name not in but and fingerprint(folder / name) != expected:
                raise ArtifactError(f"{folder} is damaged: {name} is not what its manifest says")
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{folder} is no checkpoint: its {MANIFEST} cannot be read ({error})") from error


def find_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run's folder, newest first; not yet verified."""
    found = (run / "checkpoints").glob("step-*")
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
    """What `path` names: a run's best checkpoint, else its newest; anything else is weights, told apart where
    they are read. Raises InputError.
    """
    if not path.exists():
        raise InputError(f"{setting}={path}: no such folder or file")
    is_run = path.is_dir() and any((path / name).is_dir() for name in ("checkpoints", ".hydra"))
    if not is_run:
        return path
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
        best = Path(json.loads((run / "summary.json").read_bytes())["best_checkpoint"])
        return run / "checkpoints" / best.name
    except (OSError, ValueError, TypeError, KeyError):
        return None


def find_runs(outputs: Path) -> list[Path]:
    """Run folders below `outputs`, newest first: those that have settings or checkpoints."""
    runs = {file.parent for pattern in ("checkpoints", ".hydra") for file in outputs.rglob(pattern)}
    return sorted(runs, key=lambda run: run.stat().st_mtime, reverse=True)


def resume_arguments(arguments: list[str]) -> list[str]:
    """Command-line arguments with `resume=` spelled out: the run's own settings, then the given ones.

    `resume=auto` means the folder given as hydra.run.dir, else the newest run with a checkpoint below
    outputs/; where there is none, the run starts anew. Raises InputError for a folder that is no run.
    """
    wanted = _value_of("resume", arguments)
    if wanted in (None, "", "null"):
        return arguments
    if SWEEP & set(arguments):
        raise InputError(f"resume={wanted} goes on with one run, -m starts several: leave one of them out")
    rest = [word for word in arguments if not word.lstrip("+").startswith("resume=")]
    run = _newest_run(_value_of("hydra.run.dir", arguments)) if wanted == "auto" else Path(str(wanted))
    if run is None:
        return rest
    if not find_checkpoints(run):
        raise InputError(f"resume={run} is no run with a checkpoint: give the folder that holds checkpoints/")
    recorded = run / ".hydra" / "overrides.yaml"
    own = yaml.safe_load(recorded.read_text()) if recorded.is_file() else []
    own = [word for word in own if not word.lstrip("+").startswith("resume=")]
    return [*own, *rest, f"resume='{run}'", f"hydra.run.dir='{run}'"]


def _value_of(key: str, arguments: list[str]) -> str | None:
    words = [word.lstrip("+") for word in arguments]
    given = [word.partition("=")[2].strip("'\"") for word in words if word.startswith(f"{key}=")]
    return given[-1] if given else None


def _newest_run(named: str | None) -> Path | None:
    candidates = find_runs(Path("outputs")) if named is None else [Path(named)]
    return next((run for run in candidates if find_checkpoints(run)), None)


def fingerprint(file: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, as a manifest holds them."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}
