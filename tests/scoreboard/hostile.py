"""Trial 11: files made to run code, to be followed elsewhere, or to swell, through every entry point."""

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt_pretrain.foreign import SPARE
from gpt_pretrain.runs.folders import find_checkpoints, fingerprint
from tests.scoreboard.kills import reference
from tests.scoreboard.server import SETTINGS, fresh, run
from tests.scoreboard.table import Case, Profile

SLACK = 24 << 20  # bytes: what a process takes more or less from one time to the next


class _Touch:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def _pickle(canary: Path) -> bytes:
    return pickle.dumps({"weight": _Touch(canary)})


def _torch_zip(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3")
    return stream.getvalue()


def _zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(300 << 20))
    return stream.getvalue()


def _header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + bytes(64)


def _aliases() -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(lines).encode()


def _weights(canary: Path) -> dict[str, bytes]:
    """Files that say they are weights."""
    return {
        "model.pth": _pickle(canary),
        "zip.pth": _torch_zip(_pickle(canary)),
        "bomb.pth": _zip_bomb(),
        "list.safetensors": _header(b'{"a":[' + b"[]," * (20 << 20) + b"[]]}"),
        "deep.safetensors": _header(b'{"a":' + b"[" * (1 << 20)),
        "claim.safetensors": (1 << 62).to_bytes(8, "little") + b"{" + bytes(100),
        "up.index.json": json.dumps({"weight_map": {"a": "../../etc/passwd"}}).encode(),
        "wide.index.json": b'{"weight_map": {"a": "b"}, "x": [' + b"[]," * (5 << 20) + b"[]]}",
        "deep.index.json": b'{"weight_map": ' + b"[" * 100000,
    }


def _in_a_run(canary: Path) -> dict[str, bytes]:
    """Files in a downloaded run's checkpoint, whose manifest vouches for them."""
    return {
        "settings.yaml": f"model: !!python/object/apply:os.system ['touch {canary}']\n".encode(),
        "settings.yaml ": b"seed: ${oc.env:HOME}\n",
        "settings.yaml  ": _aliases(),
        "settings.yaml   ": b"[" * 100000,
        "trainer_state.json": b"[" * 100000,
        "trainer_state.json ": b'{"callbacks": [' + b"[]," * (10 << 20) + b"[]]}",
        "tokenizer_settings.json": b"[" * 100000,
        "config.json": b'{"model_type": "gpt2", "x": ' + b"[" * 100000,
        "config.json ": json.dumps({"model_type": "gpt2", "auto_map": {"AutoModel": "evil.Model"}}).encode(),
        "optimizer.safetensors": _header(b'{"a":[' + b"[]," * (20 << 20) + b"[]]}"),
    }


def hostile(profile: Profile, change: Callable[[], None] | None = None) -> Iterator[Case]:
    reference(profile.folder / "whole", *SETTINGS)
    place, canary = profile.folder / "hostile", profile.folder / "canary"
    usual = run(fresh(place), "checkpoint=../whole/run", "prompt=a", program="generate").peak
    for name, content in _weights(canary).items():
        for program, words in (
            ("generate", [f"checkpoint={name}", "prompt=a"]),
            ("train", [*SETTINGS, "weights=checkpoint", f"weights.path={name}"]),
        ):
            (fresh(place) / name).write_bytes(content)
            yield _harmless(f"{program} {name}", place, canary, usual + len(content), program, words, change)
    for name, content in _in_a_run(canary).items():
        for program, words in (
            ("train", ["resume=run", "trainer.max_steps=13"]),
            ("generate", ["checkpoint=run"]),
        ):
            _replace(fresh(place), profile.folder / "whole" / "run", name.strip(), content)
            said = f"{program} a run's {name.strip()}"
            yield _harmless(said, place, canary, usual + len(content), program, words, change)
    yield from _links_and_pipes(profile, place, canary, usual)


def _harmless(
    name: str,
    place: Path,
    canary: Path,
    memory: int,
    program: str,
    words: list[str],
    change: Callable[[], None] | None = None,
    codes: tuple[int, ...] = (0, 2, 3),
) -> Case:
    canary.unlink(missing_ok=True)
    ended = run(place, *words, program=program, change=change)
    why = (
        "code was run"
        if canary.exists()
        else f"exit code {ended.code}: {ended.said[-300:]}"
        if ended.code not in codes or not ended.is_clean
        else f"{(ended.peak - memory) >> 20} MiB more than the file"
        if ended.peak > memory + SPARE + SLACK
        else ""
    )
    return Case(name, not why, why)


def _replace(place: Path, run_: Path, name: str, content: bytes) -> None:
    shutil.copytree(run_, place / "run")
    for folder in find_checkpoints(place / "run"):
        (folder / name).write_bytes(content)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest[name] = fingerprint(folder / name)
        (folder / "manifest.json").write_text(json.dumps(manifest))


def _links_and_pipes(profile: Profile, place: Path, canary: Path, usual: int) -> Iterator[Case]:
    secret = profile.folder / "secret"
    secret.write_text("not yours")
    for name in ("metrics.csv", "summary.json", "checkpoints/step-00000012/model.safetensors", ".lock"):
        for kind in ("link", "pipe"):
            shutil.copytree(profile.folder / "whole" / "run", fresh(place) / "run")
            (place / "run" / name).unlink(missing_ok=True)
            if kind == "pipe":
                os.mkfifo(place / "run" / name)
            else:
                (place / "run" / name).symlink_to(secret)
            for program, words in (
                ("train", ["resume=run", "trainer.max_steps=13"]),
                ("generate", ["checkpoint=run"]),
            ):
                said = f"{program} a run whose {name} is a {kind}"
                case = _harmless(said, place, canary, usual + (64 << 20), program, words)
                yield case if secret.read_text() == "not yours" else Case(said, False, "written through")


def unsafe(profile: Profile) -> Iterator[Case]:
    """A loader that runs what a pickle says: the canary is touched."""
    place, canary = fresh(profile.folder / "hostile"), profile.folder / "canary"
    (place / "model.pth").write_bytes(_pickle(canary))
    words = ["checkpoint=model.pth", "prompt=a"]
    yield _harmless("a plain unpickler", place, canary, 1 << 40, "generate", words, _unpickle)
    canary.unlink(missing_ok=True)


def _unpickle() -> None:
    from gpt_pretrain.weights import read

    read._kind = lambda file: "torch"  # type: ignore[assignment]
    read._READERS["torch"] = lambda file: pickle.loads(file.read_bytes())
