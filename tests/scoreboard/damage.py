"""Trials 3 and 4: files that are damaged, and a disk that is full."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.runs import folders
from gpt_pretrain.runs.folders import find_checkpoints, newest_valid
from tests.scoreboard.kills import reference, traced
from tests.scoreboard.server import SETTINGS, fresh, go_on
from tests.scoreboard.table import Case, Profile
from tests.scoreboard.traces import differences, traces


def corruptions(profile: Profile) -> Iterator[Case]:
    """Every file of the newest checkpoint, cut, emptied, zeroed, deleted, swapped; single bits flipped: the
    checkpoint is passed over by name. Beside the checkpoints: the run goes on without a traceback.
    """
    reference(profile.folder / "whole", *SETTINGS)
    run, chance = profile.folder / "whole" / "run", profile.random("corruptions")
    yield from _in_checkpoints(run, profile.folder / "damaged", chance, profile.of(200, 2000))
    yield from _beside(run, profile.folder / "beside", chance, profile.of(3, 20))
    yield from _nothing_left(run, profile.folder / "emptied")


def unverified(profile: Profile) -> Iterator[Case]:
    """Without the hashes: a flipped bit goes unnoticed."""
    reference(profile.folder / "whole", *SETTINGS)
    verify, folders.verify = folders.verify, lambda folder: None
    try:
        chance = profile.random("corruptions")
        run = profile.folder / "whole" / "run"
        cases = list(_in_checkpoints(run, profile.folder / "damaged", chance, 20))
    finally:
        folders.verify = verify
    yield Case("no hash compared", all(case.holds for case in cases), "damage went unnoticed")


def _in_checkpoints(run: Path, copy: Path, chance: random.Random, flips: int) -> Iterator[Case]:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    newest, before = find_checkpoints(copy)[:2]
    files = sorted(newest.iterdir())
    damages: list[tuple[str, Path, Callable[[bytes], bytes | None]]] = []
    for file in files:
        other = (before / file.name).read_bytes()
        damages += [
            (f"{file.name} cut", file, lambda data: data[: len(data) // 2]),
            (f"{file.name} without its last byte", file, lambda data: data[:-1]),
            (f"{file.name} emptied", file, lambda data: b""),
            (f"{file.name} zeroed", file, lambda data: bytes(len(data))),
            (f"{file.name} deleted", file, lambda data: None),
        ]
        if other != file.read_bytes():
            damages.append((f"{file.name} of the one before", file, lambda data, other=other: other))
    sizes = [file.stat().st_size for file in files]
    for _ in range(flips):  # half of them anywhere, half in files alike
        file = chance.choice(files) if chance.random() < 0.5 else chance.choices(files, sizes)[0]
        bit = chance.randrange(8 * file.stat().st_size)
        damages.append((f"{file.name} bit {bit}", file, lambda data, bit=bit: _flipped(data, bit)))
    for name, file, damage in damages:
        data = file.read_bytes()
        changed = damage(data)
        file.unlink() if changed is None else file.write_bytes(changed)
        try:
            found, said = newest_valid(copy)
            held = found == before and any(str(newest) in line for line in said)
            yield Case(name, held, f"went unnoticed: {found}, {said}")
        except ArtifactError as error:
            yield Case(name, False, str(error))
        finally:
            file.write_bytes(data)


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _beside(run: Path, copy: Path, chance: random.Random, n: int) -> Iterator[Case]:
    """metrics.csv, summary.json, events, samples: none of it is needed to go on."""
    files = [
        file.relative_to(run) for file in run.rglob("*") if file.is_file() and "checkpoints" not in file.parts
    ]
    for name in chance.sample(sorted(files), min(n, len(files))):
        folder = fresh(copy)
        shutil.copytree(run, folder / "run")
        (folder / "run" / name).write_bytes(chance.randbytes(3000) + b"\0" * 100)
        ended = go_on(folder, *SETTINGS, "trainer.max_steps=13").wait()
        yield Case(f"{name} garbled", ended.code == 0 and ended.is_clean, ended.said[-400:])


def _nothing_left(run: Path, copy: Path) -> Iterator[Case]:
    folder = fresh(copy)
    shutil.copytree(run, folder / "run")
    shutil.rmtree(folder / "run" / "checkpoints")
    (folder / "run" / "checkpoints").mkdir()
    for words in (["resume=run"], ["hydra.run.dir=run"]):
        from tests.scoreboard.server import run as run_program

        ended = run_program(folder, *SETTINGS, *words)
        wanted = 3 if words == ["resume=run"] else 2
        yield Case(f"checkpoints/ emptied, {words[0]}", ended.code == wanted and ended.is_clean, ended.said)


FULL = "write,pwrite64,fsync,openat,mkdir,mkdirat,rename,renameat,renameat2"


def full_disks(profile: Profile) -> Iterator[Case]:
    """From the n-th write on, for a while, the disk is full: the run goes on or ends with 5, nothing of what
    was committed is lost, and afterwards it goes on as if nothing had been.
    """
    whole, _ = reference(profile.folder / "whole", *SETTINGS)
    chance = profile.random("full")
    for _ in range(profile.of(4, 60)):
        first, length = chance.randrange(30, 900), chance.choice([1, 10, 100])
        folder = fresh(profile.folder / "full")
        inject = f"inject=write,pwrite64,fsync:error=ENOSPC:when={first}..{first + length}"
        ended = traced(folder, inject).wait()
        name = f"writes {first} to {first + length} find the disk full"
        if ended.code not in (0, 5) or not ended.is_clean:
            yield Case(name, False, f"exit code {ended.code}: {ended.said[-600:]}")
            continue
        again = go_on(folder, *SETTINGS).wait() if ended.code else ended
        other = differences({key: whole[key] for key in ("weights", "optimizer")}, traces(folder / "run"))
        yield Case(
            name, again.code == 0 and not other, f"{again.code}: {', '.join(other)} {again.said[-300:]}"
        )


def full_without_retry(profile: Profile) -> Iterator[Case]:
    """A save that may not fail: the run ends with the first."""
    folder = fresh(profile.folder / "full")
    ended = go_on(folder, *SETTINGS, "trainer.save_retries=0", change=_full_once).wait()
    yield Case("no save may fail", ended.code == 0, f"exit code {ended.code}")


def _full_once() -> None:
    inner, calls = os.fsync, iter(range(10**9))

    def fsync(descriptor: int) -> None:
        if next(calls) == 20:
            raise OSError(28, "No space left on device")
        inner(descriptor)

    os.fsync = fsync
