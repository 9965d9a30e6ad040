"""A run's other processes while it trains: met before the first exchange, named where one is lost."""

from datetime import timedelta
from pathlib import Path
from subprocess import Popen
from types import TracebackType
from typing import Any

import lightning as L
from lightning.pytorch.strategies import ParallelStrategy

from gpt_pretrain.config import TrainerConfig
from gpt_pretrain.config.words import typed
from gpt_pretrain.errors import InputError
from gpt_pretrain.launch.meeting import Meeting, as_first_of
from gpt_pretrain.launch.process import process
from gpt_pretrain.launch.watch import is_failed_exchange
from gpt_pretrain.runs.folders import find_checkpoints
from gpt_pretrain.training.report import short


class Company(L.Callback):
    """A context around each fit of several processes, which meet once. A lost one ends it with its name."""

    def __init__(
        self,
        config: TrainerConfig,
        world_size: int,
        run: Path,
        resume_from: Path | None,
        meeting: Meeting | None,
    ) -> None:
        self.config, self.world_size, self.run, self.resume_from = config, world_size, run, resume_from
        self.meeting, self.has_met = meeting, False
        self.children: dict[int, Popen[bytes]] = {}  # by rank, once Lightning has started them

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.meeting is not None:
            self.meeting.watch.step = trainer.global_step

    def join(self, strategy: ParallelStrategy) -> None:
        """Before Lightning's own rendezvous, which would wait without a word: it finds all there. After a
        run has rolled back they are together still.
        """
        import torch.distributed as dist

        if self.has_met:
            return
        environment = strategy.cluster_environment
        assert environment is not None
        gpu = strategy.root_device.type == "cuda"
        if gpu and not dist.is_nccl_available():
            raise InputError(
                "several GPUs need NCCL, which this PyTorch lacks: install one for CUDA, or set trainer=cpu"
            )
        if self.meeting is None:  # Lightning has just started the others
            first = as_first_of(process(), self.world_size, environment.main_address, environment.main_port)
            self.meeting = open_meeting(self.config, first)
            self.meeting.watch.children = self.children
            self.meeting.gather(self.run, self.resume_from)
        self.meeting.begin()
        self.meeting.watch.remedy, self.meeting.watch.run = self._remedy, self.run
        dist.init_process_group(
            "nccl" if gpu else "gloo",
            store=dist.PrefixStore("exchange", self.meeting.store),
            rank=self.meeting.process.rank,
            world_size=self.meeting.process.world_size,
            timeout=timedelta(seconds=self.config.exchange_timeout),
            device_id=strategy.root_device if gpu else None,
        )
        self.has_met = True

    def __enter__(self) -> "Company":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.meeting is None:
            return
        if error is not None and is_failed_exchange(error):
            raise self.meeting.watch.failed_exchange() from error
        if error is None:
            self.meeting.end()

    def _remedy(self) -> str:
        saved = find_checkpoints(self.run)
        if not saved:
            return "nothing was saved yet: start it again"
        return f"{typed('resume', short(self.run))} goes on from {saved[0].name}"


def open_meeting(config: TrainerConfig, whose: Any = None) -> Meeting:
    """Where this run's processes meet; `whose` says which of them this is, if not the launcher."""
    return Meeting(whose or process(), limit=config.start_timeout, silence=config.silence_timeout)
