"""Runs of the programs as processes that have paid for their imports: forked from one that has made them."""

import importlib
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import lightning  # noqa: F401 - paid for here, once
import matplotlib.pyplot  # noqa: F401
import torch
import torch.utils.tensorboard

from gpt_pretrain.cli import commands
from gpt_pretrain.launch.signals import listen
from gpt_pretrain.runs import pretrained  # noqa: F401
from gpt_pretrain.training import plots, preflight, train  # noqa: F401

# Dropout, accumulation, a decaying rate; events on several beats, which meet at some steps and not at others.
SETTINGS = [
    *("model=tiny", "model.n_layers=1", "model.emb_dim=32", "model.drop_rate=0.1", "tokenizer=bytes"),
    *("trainer=cpu", "trainer.precision=32-true", "data.batch_size=2", "trainer.global_batch_tokens=256"),
    *("schedule=cosine", "trainer.max_steps=12", "trainer.log_every=1", "trainer.eval_every=4"),
    *("trainer.eval_batches=2", "trainer.sample_every=3", "trainer.checkpoint_every=2"),
    *("decoding.max_new_tokens=2", "trainer.keep_last=2"),
    "logger.pictures=false",  # a run's pictures take longer than its steps
]
TIMEOUT = 90.0  # seconds, after which a process hangs


@dataclass(slots=True)
class Ended:
    code: int  # negative: by this signal, -1000: it hung
    said: str  # standard error
    seconds: float
    peak: int  # bytes of memory

    @property
    def is_clean(self) -> bool:
        return "Traceback" not in self.said


@dataclass(slots=True)
class Started:
    pid: int
    log: Path
    since: float

    def wait(self, timeout: float = TIMEOUT) -> Ended:
        """Its end; everything that it started ends with it."""
        deadline = time.monotonic() + timeout
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                self.kill()
                _, _, usage = os.wait4(self.pid, 0)
                status = None
                break
            time.sleep(0.003)
        seconds = time.monotonic() - self.since
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # loader processes that outlive it
        code = -1000 if status is None else os.waitstatus_to_exitcode(status)
        said = self.log.read_text(errors="replace") if self.log.exists() else ""
        return Ended(code, said, seconds, usage.ru_maxrss * 1024)

    def has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self, number: int = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def start(
    folder: Path,
    *arguments: str,
    program: str = "train",
    change: Callable[[], None] | None = None,
    stopped: bool = False,
) -> Started:
    """A program in `folder`. `change` is called in the process before it begins: to inject a fault, or to
    take a protection away. With `stopped` it waits for SIGCONT, for a tracer to attach.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{folder.name}.stderr"
    sys.stdout.flush()
    since = time.monotonic()
    pid = os.fork()
    if pid:
        return Started(pid, log, since)
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        for descriptor in (1, 2):
            target = os.open(os.devnull if descriptor == 1 else log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(target, descriptor)
        sys.argv = [f"{program}.py", *arguments]
        if change:
            change()
        if stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
        listen()  # the first line of train.py
        scripts = {"train": commands.train_command, "generate": commands.generate_command}
        (scripts.get(program) or getattr(importlib.import_module(f"gpt_pretrain.{program}"), program))()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:
        sys.stderr.flush()
        os._exit(code)


def run(folder: Path, *arguments: str, **options: object) -> Ended:
    return start(folder, *arguments, **options).wait()  # type: ignore[arg-type]


def go_on(folder: Path, *settings: str, change: Callable[[], None] | None = None) -> Started:
    """The run in `folder`/run from wherever it stands: the same command line again."""
    stands = any((folder / "run" / name).is_dir() for name in ("checkpoints", ".hydra"))
    return start(folder, *settings, "resume=run" if stands else "hydra.run.dir=run", change=change)


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def prepare() -> None:
    """Of the process that forks: one thread, no core files, nothing that a fork could not carry over."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
