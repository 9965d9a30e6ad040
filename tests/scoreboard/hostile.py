"""Trial 11: files made to run code, to be followed elsewhere, or to swell, through every entry point."""

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
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


# Made when it is written: what this process holds, those that it forks hold too.
Content = Callable[[], bytes]


def _weights(canary: Path) -> dict[str, Content]:
    """Files that say they are weights."""
    return {
        "model.pth": lambda: _pickle(canary),
        "zip.pth": lambda: _torch_zip(_pickle(canary)),
        "bomb.pth": _zip_bomb,
        "list.safetensors": lambda: _header(b'{"a":[' + b"[]," * (20 << 20) + b"[]]}"),
        "deep.safetensors": lambda: _header(b'{"a":' + b"[" * (1 << 20)),
        "claim.safetensors": lambda: (1 << 62).to_bytes(8, "little") + b"{" + bytes(100),
        "up.index.json": lambda: json.dumps({"weight_map": {"a": "../../etc/passwd"}}).encode(),
        "wide.index.json": lambda: b'{"weight_map": {"a": "b"}, "x": [' + b"[]," * (5 << 20) + b"[]]}",
        "deep.index.json": lambda: b'{"weight_map": ' + b"[" * 100000,
    }


def _in_a_run(canary: Path) -> dict[str, Content]:
    """Files in a downloaded run's checkpoint, whose manifest vouches for them."""
    return {
        "settings.yaml": lambda: f"model: !!python/object/apply:os.system ['touch {canary}']\n".encode(),
        "settings.yaml ": lambda: b"seed: ${oc.env:HOME}\n",
        "settings.yaml  ": _aliases,
        "settings.yaml   ": lambda: b"[" * 100000,
        "trainer_state.json": lambda: b"[" * 100000,
        "trainer_state.json ": lambda: b'{"callbacks": [' + b"[]," * (10 << 20) + b"[]]}",
        "tokenizer_settings.json": lambda: b"[" * 100000,
        "config.json": lambda: b'{"model_type": "gpt2", "x": ' + b"[" * 100000,
        "config.json ": lambda: json.dumps(
            {"model_type": "gpt2", "auto_map": {"AutoModel": "evil.Model"}}
        ).encode(),
        "optimizer.safetensors": lambda: _header(b'{"a":[' + b"[]," * (20 << 20) + b"[]]}"),
    }


def hostile(profile: Profile) -> Iterator[Case]:
    """Each file through both programs; in the quick profile through one of them, in turn."""
    reference(profile.folder / "whole", *SETTINGS)
    place, canary, secret = (profile.folder / name for name in ("hostile", "canary", "secret"))
    secret.write_text("not yours")
    usual = run(fresh(place), "checkpoint=../whole/run", "prompt=a", program="generate").peak
    for number, (name, put, as_run) in enumerate(_tricks(profile, place, canary)):
        if as_run:
            commands = {"train": ["resume=run", "trainer.max_steps=13"], "generate": ["checkpoint=run"]}
        else:
            commands = {
                "train": [*SETTINGS, "weights=checkpoint", f"weights.path={name}"],
                "generate": [f"checkpoint={name}", "prompt=a"],
            }
        for program in commands if profile.full else [("train", "generate")[number % 2]]:
            fresh(place)
            size = put()
            case = _harmless(f"{program} {name}", place, canary, usual + size, program, commands[program])
            yield case if secret.read_text() == "not yours" else Case(case.name, False, "written through")


def _tricks(profile: Profile, place: Path, canary: Path) -> Iterator[tuple[str, Callable[[], int], bool]]:
    """A name, what puts the file and returns its size, and whether it lies in a run."""
    run_ = profile.folder / "whole" / "run"
    for name, content in _weights(canary).items():
        yield name, lambda name=name, content=content: (place / name).write_bytes(content()), False
    for name, content in _in_a_run(canary).items():
        put = partial(_replace, place, run_, name.strip(), content)
        yield f"a run's {name.strip()}", put, True
    for name in ("metrics.csv", "summary.json", "checkpoints/step-00000012/model.safetensors", ".lock"):
        for kind in ("link", "pipe"):
            put = partial(_link_or_pipe, place, run_, name, kind, profile.folder / "secret")
            yield f"a run whose {name} is a {kind}", put, True


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


def _replace(place: Path, run_: Path, name: str, content: Content) -> int:
    """The number of bytes written, in each checkpoint."""
    shutil.copytree(run_, place / "run")
    for folder in find_checkpoints(place / "run"):
        size = (folder / name).write_bytes(content())
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest[name] = fingerprint(folder / name)
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return size


def _link_or_pipe(place: Path, run_: Path, name: str, kind: str, secret: Path) -> int:
    shutil.copytree(run_, place / "run")
    (place / "run" / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place / "run" / name)
    else:
        (place / "run" / name).symlink_to(secret)
    return 0


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
