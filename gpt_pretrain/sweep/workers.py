"""Several trials at a time on one machine: processes that run the same command on the same folder.

Each takes the trials that nobody has, as workers do that a user starts on several machines. Imports are paid
once a worker, and a trial has the worker's threads and devices to itself.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from gpt_pretrain.config.words import word, words_of
from gpt_pretrain.errors import StoppedError
from gpt_pretrain.sweep.trial import own_command, own_environment
from gpt_pretrain.terminal.text import show

PARENT = "GPT_PRETRAIN_SWEEP_PARENT"  # the process that a worker ends with
LOOKS = 0.5  # seconds from look to look
MOST_DEATHS = 20  # of workers, after which no other one takes their place


def run_workers(hydra: Any, folder: Path, jobs: int, look: Callable[[], None]) -> None:
    """Run `jobs` workers to their end; `look` is called meanwhile. Raises StoppedError after a signal."""
    (folder / "workers").mkdir(exist_ok=True)
    show(f"        {jobs} workers, {_threads(jobs)} threads each; what they say is in {folder / 'workers'}")
    workers = [_start(hydra, folder, jobs, index) for index in range(jobs)]
    deaths = 0
    with _passing_on_signals(workers) as received:
        while any(worker.poll() is None for worker in workers):
            time.sleep(LOOKS)
            look()
            for index, worker in enumerate(workers):
                if (worker.poll() or 0) < 0 and not received and deaths < MOST_DEATHS:
                    deaths += 1  # by a signal that nobody passed on: as when memory runs out
                    workers[index] = _start(hydra, folder, jobs, index)
    look()
    if received:
        raise StoppedError(received[0], "the sweep was stopped: the same command goes on with it")


def _start(hydra: Any, folder: Path, jobs: int, index: int) -> subprocess.Popen[bytes]:
    # What is to be tried again was set back before; a worker would do so again with what failed since.
    words = [*words_of(hydra, "task"), "sweep.jobs=1", "sweep.retry=false"]
    words.append(word("hydra.sweep.dir", str(folder)))
    command = own_command(hydra, ["-m", *words], left_out=("hydra.sweep.dir=",))
    environment = own_environment() | {PARENT: str(os.getpid())}
    environment.setdefault("OMP_NUM_THREADS", str(_threads(jobs)))
    devices = _devices(jobs, index)
    if devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = devices
    with (folder / "workers" / f"{index}.log").open("ab") as said:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)


def _threads(jobs: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // jobs) if hasattr(os, "sched_getaffinity") else 1


def _devices(jobs: int, index: int) -> str | None:
    """The GPUs of a worker: its share, or one that it shares with others. None without GPUs."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    n_gpus = torch.cuda.device_count()
    names = given.split(",")[:n_gpus] if given else [str(gpu) for gpu in range(n_gpus)]
    if not names:
        return None
    own = names[index::jobs] or [names[index % len(names)]]
    return ",".join(own)


@contextmanager
def _passing_on_signals(workers: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """A signal to this process is one to each worker, which saves its trial and ends."""
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for worker in workers:
            with suppress(ProcessLookupError):
                worker.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()
                worker.wait()


def is_orphan() -> bool:
    """Whether this is a worker whose parent is gone: another start of the same command takes its place."""
    parent = os.environ.get(PARENT)
    return parent is not None and str(os.getppid()) != parent
