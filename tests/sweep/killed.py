"""Sweeps that are killed at random instants and started again: python -m tests.sweep.killed FOLDER SEARCHES.

Libraries are loaded once, and each start is a fork of this process. What it finds is printed as JSON.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

from gpt_pretrain.errors import DivergedError
from gpt_pretrain.sweep import queue
from gpt_pretrain.sweep.record import SweepRecord
from gpt_pretrain.training import train as training
from tests.scoreboard import server

REAL = training.train
KILLS = 10
SPACES = {
    "grid": ["optimizer.lr=1e-4,3e-4,1e-3,3e-3,1e-2,3e-2", "seed=1,2"],
    "tpe": ["sweep=tpe", "sweep.trials=12", "optimizer.lr=tag(log, interval(1e-4,3e-2))"],
    "shared": ["seed=range(0,20)"],
}


def train(config, prepared, run, *rest):
    """Trials that are counted; of a search that is killed one always crashes, one always diverges."""
    with Path("trained.log").open("a") as stream:
        stream.write(f"{run.name}\n")
    if run.name == "3" and "shared" not in str(run):
        raise RuntimeError("it always does")
    if run.name == "5" and "shared" not in str(run):
        raise DivergedError("it always diverges")
    return REAL(config, prepared, run, *rest)


def start(folder: Path, words: list[str]) -> server.Started:
    def count_trials():
        training.train = train
        queue.MOST_DEATHS = KILLS + 1  # these kills are no trial's own doing

    return server.start(folder, "-m", *words, "hydra.sweep.dir=sweep", change=count_trials)


def trials(folder: Path) -> dict[int, list]:
    """Status, loss and point of each. Raises ArtifactError where a record cannot be read."""
    found = SweepRecord(folder / "sweep").refresh()
    return {number: [trial.status, trial.objective, trial.point] for number, trial in found.items()}


def pids(folder: Path) -> list[int]:
    """Of the processes that ran the trials."""
    return [trial.pid for trial in SweepRecord(folder / "sweep").refresh().values()]


def trained(folder: Path) -> list[str]:
    """The trials that were trained, as they began."""
    file = folder / "trained.log"
    return file.read_text().splitlines() if file.exists() else []


def kill_often(folder: Path, words: list[str], seconds: float) -> tuple[int, list[str]]:
    """Kill the sweep KILLS times, each within so many seconds of its start: how often it was alive, and what
    was wrong afterwards.
    """
    chance, alive, wrong = random.Random(7), 0, []
    for _ in range(KILLS):
        ran = len(trained(folder))
        before = {
            number: trial for number, trial in SweepRecord(folder / "sweep").refresh().items() if trial.ended
        }
        started = start(folder, words)
        time.sleep(chance.uniform(0, seconds))
        started.kill()
        alive += started.wait().code == -9
        again = SweepRecord(folder / "sweep").refresh()
        wrong += [f"trial {number} changed" for number, trial in before.items() if again[number] != trial]
        wrong += [f"trial {number} ran again" for number in before if str(number) in trained(folder)[ran:]]
    return alive, wrong


def look(folder: Path, words: list[str]) -> dict:
    """What becomes of a search that is killed, and of the same one that is not."""
    whole = start(folder / "whole", words).wait()
    alive, wrong = kill_often(folder / "killed", words, whole.seconds / 8)
    codes = [whole.code, start(folder / "killed", words).wait().code]
    results = {name: trials(folder / name) for name in ("whole", "killed")}
    return {"codes": codes, "alive": alive, "wrong": wrong, **results}


def share(folder: Path, words: list[str]) -> dict:
    """What becomes of a search on which two processes work."""
    workers = [start(folder / "shared", words) for _ in range(2)]
    codes = [worker.wait().code for worker in workers]
    shared = folder / "shared"
    return {"codes": codes, "ran": trained(shared), "shared": trials(shared), "pids": pids(shared)}


def main(folder: Path, searches: str, *settings: str) -> None:
    server.prepare()
    os.environ["GPT_PRETRAIN_CACHE"] = str(folder / "cache")
    found = {}
    for search in searches.split(","):
        of = share if search == "shared" else look
        found[search] = of(folder / search, [*settings, *SPACES[search]])
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
