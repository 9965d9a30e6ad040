"""Trials 8 and 9: several ranks, one of which is lost; and a number of ranks that changes."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.conftest import ROOT
from tests.scoreboard.server import SETTINGS, fresh
from tests.scoreboard.table import Case, Profile

# No dropout, whose masks are a rank's own; the same batch in two halves.
WHOLE = [
    word for word in SETTINGS if not word.startswith(("data.batch_size", "model.drop_rate", "trainer.global"))
]
WHOLE += ["trainer.max_steps=60", "trainer.global_batch_tokens=null", "model.drop_rate=0"]
ONE, TWO = ["trainer.devices=1", "data.batch_size=4"], ["trainer.devices=2", "data.batch_size=2"]


def changed(profile: Profile) -> Iterator[Case]:
    """On one rank, then two, then one, the schedule going on: the losses of one rank all the way."""
    folder = fresh(profile.folder / "ranks")
    _train(folder, *WHOLE, *ONE, "hydra.run.dir=alone")
    for ranks, where, until in (
        (ONE, "hydra.run.dir=run", 16),
        (TWO, "resume=run", 36),
        (ONE, "resume=run", 60),
    ):
        process = _popen(folder, [sys.executable, str(ROOT / "train.py"), *WHOLE, *ranks, where])
        while until < 60 and process.poll() is None and _newest(folder) < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM if until < 60 else 0)
        process.wait(timeout=120)
        said = (folder / "said").read_text()
        if process.returncode != (0 if until == 60 else 128 + signal.SIGTERM):
            yield Case(f"up to step {until}", False, f"{process.returncode}: {said[-500:]}")
            return
    alone, others = _losses(folder / "alone"), _losses(folder / "run")
    apart = max(abs(alone[step] - others[step]) for step in alone) if alone.keys() == others.keys() else 9.0
    yield Case("1 -> 2 -> 1 ranks", apart < 1e-5, f"losses {apart:.1e} apart")


def _newest(folder: Path) -> int:
    return max((int(path.name[5:]) for path in folder.glob("run/checkpoints/step-*")), default=0)


def other_batches(profile: Profile) -> Iterator[Case]:
    """Other samples, as a plain shuffled loader would draw on resuming: the losses are others."""
    folder = fresh(profile.folder / "ranks")
    _train(folder, *WHOLE, *ONE, "trainer.max_steps=20", "hydra.run.dir=alone")
    _train(folder, *WHOLE, *ONE, "trainer.max_steps=20", "seed=124", "hydra.run.dir=run")
    alone, others = _losses(folder / "alone"), _losses(folder / "run")
    yield Case("another order", max(abs(alone[step] - others[step]) for step in alone) < 1e-5, "others")


def lost(profile: Profile) -> Iterator[Case]:
    """One of two ranks is killed or stopped: the other ends, with 5, and what was saved is there."""
    chance = profile.random("lost")
    for number in range(profile.of(4, 20)):
        victim, kind = number % 2, signal.SIGSTOP if number % 4 >= 2 else signal.SIGKILL
        yield _lost(fresh(profile.folder / "lost"), victim, kind, chance.uniform(0, 2), patience=5)


def nothing_lost(profile: Profile) -> Iterator[Case]:
    """Nobody minds that a rank is silent."""
    yield _lost(fresh(profile.folder / "lost"), 1, signal.SIGSTOP, 0, patience=10**6, limit=20)


def _lost(
    folder: Path, victim: int, kind: signal.Signals, after: float, *, patience: int, limit: int = 60
) -> Case:
    endless = ["trainer.max_steps=100000", f"trainer.silence_timeout={patience}", "hydra.run.dir=run"]
    process = _popen(folder, [sys.executable, str(ROOT / "train.py"), *WHOLE, *TWO, *endless])
    while not _newest(folder) and process.poll() is None:
        time.sleep(0.1)
    time.sleep(after)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]) if victim else process.pid, kind)
    name, stopped = (
        f"rank {victim}: {kind.name}",
        {children[0]} if victim and kind == signal.SIGSTOP else set(),
    )
    try:
        if not victim and kind == signal.SIGSTOP and not any(_lives(pid) for pid in children):
            process.kill()  # nobody else will end it
        process.wait(timeout=limit)
        said, left = (folder / "said").read_text(), [pid for pid in {*children} - stopped if _lives(pid)]
        fine = (process.returncode == 5 and "Traceback" not in said) if victim else not left
        return Case(name, fine and _newest(folder) > 0, f"{process.returncode}, left {left}: {said[-300:]}")
    except subprocess.TimeoutExpired:
        return Case(name, False, "the other one waits on")
    finally:
        for pid in (process.pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _lives(pid: str) -> bool:
    for _ in range(150):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return False
        except OSError:
            return False
        time.sleep(0.1)
    return True


def _train(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "train.py"), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def _popen(folder: Path, words: list[str]) -> subprocess.Popen[bytes]:
    """What it says stands in a file: a pipe would stay open with a process that is stopped."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "said").open("w") as said:
        return subprocess.Popen(
            words, cwd=folder, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=said
        )


def _losses(run: Path) -> dict[str, float]:
    with (run / "metrics.csv").open() as stream:
        return {row["step"]: float(row["train/loss"]) for row in csv.DictReader(stream) if row["train/loss"]}
