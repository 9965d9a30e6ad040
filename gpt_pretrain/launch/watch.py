"""Whether a run's other processes are alive. One that is not, is named by all the others.

A thread of each process writes a beat into the store where they met. The first process reads everybody's and
tells who is lost; the others read its beat and what it tells. So a process that is stopped, killed or cut off
is noticed while the main threads wait for it in an exchange, which nothing in Python can interrupt.
"""

import faulthandler
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from gpt_pretrain.errors import InfrastructureError
from gpt_pretrain.launch.last_word import say_last
from gpt_pretrain.launch.launchers import TORCHRUN, Process
from gpt_pretrain.terminal.text import show

if TYPE_CHECKING:
    from torch.distributed import Store

INTERVAL = 1.0  # seconds between two beats
GRACE = 4.0  # seconds for the main thread to end by itself, once a process is known to be lost
STACKS = 2.0  # seconds to write stacks in: what hangs may be the file system
# What no process can put off; on Windows every signal ends it so.
KILL = signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM


class Watch:
    """Beats until `close`. `remedy` says what to do, once there is a run to go on with."""

    def __init__(self, store: "Store", process: Process, hosts: dict[int, str], silence: float) -> None:
        self.store, self.process, self.hosts, self.silence = store, process, hosts, silence
        self.remedy: Callable[[], str] = lambda: "start it again"
        self.run: Path | None = None  # its folder, once there is one
        self.step = 0  # of the main thread: tells who lags behind where all beat
        self.children: dict[int, Popen[bytes]] = {}  # by rank: those that this process has started
        self.lost: tuple[int, str] | None = None  # rank, and what became of it
        self._seen: dict[int, tuple[str, float]] = {}  # by rank: its newest beat, and when it was new
        self._there: dict[int, dict[str, Any]] = {}  # where each process is
        self._turned = monotonic()
        self._closed = threading.Event()
        self._beats = 0
        for work in (self._beat, self._guard):
            threading.Thread(target=work, daemon=True, name="watch").start()

    def close(self) -> None:
        self._closed.set()

    def check(self) -> None:
        """Raise InfrastructureError where a process is lost."""
        if self.lost is not None:
            raise InfrastructureError(self.line())

    def line(self) -> str:
        assert self.lost is not None
        rank, fate = self.lost
        return f"{self._name(rank)} {fate}: {self.remedy()}"

    def failed_exchange(self) -> InfrastructureError:
        """The error to raise after an exchange with the others failed, once it is known with whom."""
        until = monotonic() + 3 * INTERVAL
        while self.lost is None and monotonic() < until:
            self.lost = self._missing()
            sleep(0.1)
        self.close()
        if self.lost is None:
            return InfrastructureError(f"{self._who_lags()}: {self.remedy()}")
        self._say_last()
        return InfrastructureError(self.line())

    def _beat(self) -> None:
        while not self._closed.wait(INTERVAL):
            paused = monotonic() - self._turned > 3 * INTERVAL  # all of this process was stopped
            self._turned = monotonic()
            try:
                self._beats += 1
                self.store.set(f"beat/{self.process.rank}", f"{self._beats} {self.step}")
                if paused:
                    self._seen.clear()
                self.lost = self.lost or self._find_lost()
            except RuntimeError:  # torch's name for a store that is gone
                if self.process.rank and not self._closed.is_set():
                    self.lost = self.lost or (0, "was lost")
            if self.lost is not None:
                return

    def _guard(self) -> None:
        """Ends the process where its main thread cannot: it waits for one that will not answer."""
        while not self._closed.wait(INTERVAL / 2):
            stuck = monotonic() - self._turned
            if self.lost is None and stuck > self.silence + 2 * INTERVAL and self.process.rank:
                self.lost = (0, f"has not answered for {stuck:.0f} s")  # the store is in its process
            if self.lost is not None and not self._closed.wait(GRACE):
                self._end()

    def _find_lost(self) -> tuple[int, str] | None:
        if self.process.rank and self.store.check(["lost"]):
            rank, fate = json.loads(self.store.get("lost"))
            return int(rank), str(fate)
        for rank, child in self.children.items():
            if (code := child.poll()) and not self.store.check([f"failed/{rank}"]):
                fate = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
                self.store.set("lost", json.dumps((rank, fate)))
                return rank, fate
        others = range(1, self.process.world_size) if self.process.rank == 0 else [0]
        for rank in others:
            age = self._age(rank)
            if age > self.silence:
                found = (rank, f"has not answered for {age:.0f} s")
                if self.process.rank == 0:
                    self.store.set("lost", json.dumps(found))
                return found
        return None

    def _age(self, rank: int) -> float:
        """Seconds since the newest beat of `rank`; 0 for one that has not arrived or has left."""
        if rank not in self.hosts and not self._arrived(rank):
            return 0.0
        if not self.store.check([f"beat/{rank}"]) or self.store.check([f"left/{rank}"]):
            return 0.0
        beat = self.store.get(f"beat/{rank}").decode()
        if self._seen.get(rank, ("", 0.0))[0] != beat:
            self._seen[rank] = (beat, monotonic())
        return monotonic() - self._seen[rank][1]

    def _arrived(self, rank: int) -> bool:
        if self.store.check([f"arrived/{rank}"]):
            self._there[rank] = json.loads(self.store.get(f"arrived/{rank}"))
            self.hosts[rank] = self._there[rank]["host"]
        return rank in self.hosts

    def _missing(self) -> tuple[int, str] | None:
        """Who has said that it failed, or has no process any more, or whose beat has come to a stop."""
        try:
            for rank in range(self.process.world_size):
                if rank == self.process.rank:
                    continue
                if self.store.check([f"failed/{rank}"]):
                    return rank, f"failed: {self.store.get(f'failed/{rank}').decode()}"
                if self.store.check([f"arrived/{rank}"]) and self._is_gone(rank):
                    return rank, f"was lost at step {self.step}"
                if self._age(rank) > 2 * INTERVAL:
                    return rank, f"was lost at step {self.step}"
        except RuntimeError:
            return (0, f"was lost at step {self.step}") if self.process.rank else None
        return None

    def _is_gone(self, rank: int) -> bool:
        """True where its process was on this machine and has ended."""
        there = json.loads(self.store.get(f"arrived/{rank}"))
        if there["host"] != socket.gethostname() or there["boot"] != boot_id():
            return False
        try:
            with open(f"/proc/{there['pid']}/stat", encoding="ascii", errors="replace") as stream:
                return stream.read().rpartition(")")[2].split()[0] in "ZX"
        except FileNotFoundError:
            return os.path.isdir("/proc/self")

    def _who_lags(self) -> str:
        steps = {}
        try:
            for rank in range(self.process.world_size):
                steps[rank] = int(self.store.get(f"beat/{rank}").decode().split()[1])
        except (RuntimeError, ValueError, IndexError):
            return "an exchange with the other processes failed"
        last = min(steps, key=steps.__getitem__)
        if steps[last] == max(steps.values()):
            return f"an exchange of all {len(steps)} processes failed at step {self.step}"
        return f"{self._name(last)} is still at step {steps[last]}, the others at {max(steps.values())}"

    def _name(self, rank: int) -> str:
        return self.process.name_of(rank, self.hosts.get(rank))

    def _end_lost(self) -> None:
        """A stopped process hears nothing else, and a launcher would wait for it."""
        assert self.lost is not None
        there = self._there.get(self.lost[0])  # the store may be in the very process
        with suppress(ProcessLookupError, PermissionError):
            if there and there["host"] == socket.gethostname() and there["boot"] == boot_id():
                os.kill(there["pid"], KILL)

    def _end(self) -> None:
        writer = threading.Thread(target=self._write_stacks, daemon=True)
        try:
            writer.start()
            writer.join(STACKS)
            show(f"error: {self.line()}", file=sys.stderr, flush=True)
            self._say_last()
            self._end_lost()
        finally:
            os._exit(InfrastructureError.exit_code)

    def _write_stacks(self) -> None:
        """What each thread of this process is at: of the lost one too, where only its main thread hangs."""
        if self.run is None:
            return
        path = self.run / f"rank-{self.process.rank}.stacks.txt"
        with suppress(OSError):
            path.unlink(missing_ok=True)
            with path.open("x", encoding="utf-8") as stream:
                faulthandler.dump_traceback(stream, all_threads=True)
            show(f"what this process was at: {path}", file=sys.stderr, flush=True)

    def _say_last(self) -> None:
        """torchrun prints its own report after its processes have ended."""
        assert self.lost is not None
        speaker = 1 if self.lost[0] == 0 else 0
        if self.process.launcher is TORCHRUN and self.process.rank == speaker:
            say_last(f"error: {self.line()}")


def is_failed_exchange(error: BaseException) -> bool:
    """True for what gloo and NCCL raise where another process cannot be reached."""
    lost = "gloo|nccl|Connection (closed|reset) by peer|Broken pipe|wait timeout"
    return isinstance(error, RuntimeError) and bool(re.search(lost, str(error), re.IGNORECASE))


def boot_id() -> str:
    """Tells machines of one name apart, and containers whose process ids are their own."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{machine} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""
