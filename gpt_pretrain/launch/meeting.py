"""Where a run's processes meet before they train, and what the first tells the others. Nobody waits silently.

The first process checks the settings, makes the run's folder and decides where to go on; the others are told.
So one process speaks, and one decides.
"""

import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from gpt_pretrain.errors import InfrastructureError, ToldError, UserFacingError
from gpt_pretrain.launch.launchers import OURSELVES, TORCHRUN, Process
from gpt_pretrain.launch.watch import Watch, boot_id
from gpt_pretrain.terminal.text import show

if TYPE_CHECKING:
    from torch.distributed import Store

log = logging.getLogger(__name__)

SILENT = 10.0  # seconds that nobody is told of
OFTEN = 60.0  # seconds until it is said again
MOST_NAMED = 4  # ranks in one message


class Meeting:
    """The processes of one run, `limit` seconds patient until all are there."""

    def __init__(self, process: Process, *, limit: float, silence: float) -> None:
        self.process, self.limit = process, limit
        self.is_first = process.rank == 0
        self.store = self._open()
        here = {"host": socket.gethostname(), "pid": os.getpid(), "boot": boot_id()}
        hosts = {process.rank: str(here["host"])}
        self.watch = Watch(self._connect(), process, hosts, silence)
        self._set(f"arrived/{process.rank}", json.dumps(here))

    def gather(self, run: Path, checkpoint: Path | None) -> None:
        """The first process's part: wait for the others, and tell them the folder and where to go on."""
        self._await(lambda: not self._without("arrived"), lambda: self._names(self._without("arrived")))
        self._set("word", json.dumps({"run": str(run), "checkpoint": checkpoint and str(checkpoint)}))

    def follow(self) -> tuple[Path, Path | None]:
        """The others' part: the run's folder and checkpoint. Raises ToldError if the first gave up."""
        self._await(lambda: self.store.check(["word"]), lambda: f"what {self._name(0)} finds", limit=False)
        word = json.loads(self.store.get("word"))
        if "code" in word:
            self.end()
            raise ToldError(int(word["code"]))
        return Path(word["run"]), word["checkpoint"] and Path(word["checkpoint"])

    def begin(self) -> None:
        """All of them: wait until every process is about to train. Raises what has kept one from it."""
        self._set(f"ready/{self.process.rank}", "")
        if not self.is_first:  # the first waits for all, the others for it
            self._await(lambda: self.store.check(["go"]), lambda: self._name(0), limit=False)
            return
        self._await(lambda: not self._without("ready"), lambda: self._names(self._without("ready")))
        self._set("go", "")

    def end(self) -> None:
        """The run is over: who is silent from now on is not lost. The first one waits for the others."""
        with suppress(RuntimeError):
            self._set(f"left/{self.process.rank}", "")
            until = monotonic() + SILENT
            while self.is_first and self._without("left") and monotonic() < until:
                sleep(0.05)
        self.watch.close()

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What ends the body here is told to the others: the first process's end is theirs too."""
        try:
            yield
        except BaseException as error:
            code = error.exit_code if isinstance(error, UserFacingError) else 1
            with suppress(RuntimeError):
                reason = " ".join(str(error).split())[:300] or type(error).__name__
                self._set(f"failed/{self.process.rank}", reason)
                if self.is_first and not self.store.check(["word"]):
                    self._set("word", json.dumps({"code": code}))
                    self.end()
            self.watch.close()
            raise
        self.end()

    def _open(self) -> "Store":
        """torchrun keeps the store itself; elsewhere the first process does."""
        if self.is_first and not _is_torchruns():
            return self._store(is_server=True)
        return self._connect()

    def _connect(self) -> "Store":
        address = (self.process.address, self.process.port)
        whom = f"{self._name(0)}, port {address[1]} of {address[0]}"
        self._await(lambda: _answers(*address), lambda: whom)
        return self._store(is_server=False)

    def _store(self, *, is_server: bool) -> "Store":
        from torch.distributed import PrefixStore, TCPStore

        try:
            store = TCPStore(
                self.process.address,
                self.process.port,
                is_master=is_server,
                wait_for_workers=False,
                timeout=timedelta(seconds=max(self.limit, 30)),
            )
        except RuntimeError as error:
            if not is_server:
                raise InfrastructureError(f"no word from {self._name(0)}: {error}") from error
            raise InfrastructureError(
                f"port {self.process.port} of {self.process.address} cannot be used to meet the others "
                f"({str(error).splitlines()[0][:120]}): export MASTER_PORT=<a free port>"
            ) from error
        return PrefixStore(f"gpt_pretrain/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)

    def _set(self, key: str, value: str) -> None:
        self.store.set(key, value)

    def _without(self, key: str) -> list[int]:
        return [rank for rank in range(self.process.world_size) if not self.store.check([f"{key}/{rank}"])]

    def _name(self, rank: int) -> str:
        return self.process.name_of(rank)

    def _names(self, ranks: list[int]) -> str:
        more = f" and {len(ranks) - MOST_NAMED} more" if len(ranks) > MOST_NAMED else ""
        return ", ".join(map(self._name, ranks[:MOST_NAMED])) + more

    def _await(self, ready: Callable[[], bool], whom: Callable[[], str], *, limit: bool = True) -> None:
        began, said = monotonic(), 0.0
        while not ready():
            waited = monotonic() - began
            if hasattr(self, "watch"):
                self.watch.check()
                self._raise_failure()
            if limit and waited > self.limit:
                raise InfrastructureError(
                    f"waited {waited:.0f} s (trainer.start_timeout) for {whom()} in vain: see whether it was "
                    "started and whether this machine can reach it; MASTER_ADDR names where they meet"
                )
            if waited > SILENT and waited - said > OFTEN - (0 if said else OFTEN):
                said = waited
                most = f", for {self.limit - waited:.0f} s more" if limit else ""
                self._say(f"waiting for {whom()}{most}")
            sleep(0.05)

    def _say(self, line: str) -> None:
        """By the first process; of the others by one on each machine."""
        first_machine = self.process.rank < self.process.local_world_size
        if self.is_first:
            log.warning("%s", line)
        elif self.process.local_rank == int(first_machine):
            show(line, file=sys.stderr, flush=True)

    def _raise_failure(self) -> None:
        """What has kept another process from training, before it began."""
        for rank in range(self.process.world_size) if self.is_first else ():
            if self.store.check([f"failed/{rank}"]):
                reason = self.store.get(f"failed/{rank}").decode()
                raise InfrastructureError(f"{self._name(rank)} failed: {reason}")


def as_first_of(process: Process, world_size: int, address: str, port: int) -> Process:
    """This process as the first of those that it starts itself."""
    return replace(
        process,
        world_size=world_size,
        local_world_size=world_size,
        launcher=OURSELVES,
        address=address,
        port=port,
    )


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=2):
            return True
    except OSError:
        return False


def _is_torchruns() -> bool:
    return TORCHRUN.mark in os.environ and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
