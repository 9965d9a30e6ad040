"""Ways to train one model on the same batches from the same weights, each in a process of its own, in turn.

A process has its own allocator and its own peak of memory. It waits at a step's beginning until it is told
how many steps to take, so that whatever else the machine does falls on all alike.
"""

import dataclasses
import logging
import multiprocessing
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from gpt_pretrain.config import TrainConfig
from gpt_pretrain.errors import InfrastructureError, UserFacingError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gpt_pretrain.training.preflight import Prepared

PRODUCTS = {"aten::mm", "aten::addmm", "aten::mkldnn_linear"}  # of activations and weights, not attention's


# nothing of our own
AS_TORCH = {
    **{"attention": "sdpa", "dropout_kernel": "torch", "loss": "torch"},
    **{"pad_vocabulary": "false", "residual": "float32", "compile": "false"},
}
LONGEST_TURN = 20  # seconds: large models take fewer steps


@dataclass(kw_only=True, slots=True, frozen=True)
class Engine:
    """One way to train. The loops are the least code that trains: forward, backward, clip, step."""

    name: str
    kind: str  # trainer, the whole program; loop, our model without it; transformers
    keeps_memory: bool = True  # the allocator keeps freed memory, as the program's does
    fused: bool = True  # the loops' AdamW
    autocast: bool = True  # the loops' precision: the program's, else float32
    batch_times: int = 1  # windows at a time, of the settings'
    ways: dict[str, Any] = dataclasses.field(default_factory=dict)  # settings of the trainer
    drop_rate: float | None = None  # else the settings'


@dataclass(kw_only=True, slots=True, frozen=True)
class Turn:
    """What an engine says of the steps it was told to take."""

    seconds: float  # a step
    products: float  # of these, in products of matrices; 0 where no profile was asked for
    peak_mb: float  # 10^6 bytes: the most that the process, or its tensors on a GPU, have taken so far
    losses: list[float]


class Running:
    """An engine's process, seen from outside."""

    def __init__(self, engine: Engine, config: TrainConfig) -> None:
        self.engine = engine
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(theirs, engine, config, time()), daemon=True, name=engine.name
        )
        self._process.start()
        theirs.close()
        self.losses: list[float] = []
        self.peak_mb = 0.0
        self.first: Turn = self._answer()  # the first step's; its seconds are counted from the command on

    def turn(self, steps: int, *, profiled: bool = False) -> Turn:
        """Let it take so many steps."""
        self._pipe.send((steps, profiled))
        return self._answer()

    def reach(self, step: int) -> None:
        """Let it go on to a step, if it is not past it."""
        if step > len(self.losses):
            self.turn(step - len(self.losses))

    def end(self) -> None:
        self._process.kill()
        self._process.join()

    def _answer(self) -> Turn:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise InfrastructureError(
                f"the process of '{self.engine.name}' died, for want of memory perhaps: "
                "choose a smaller model or batch"
            ) from error
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Turn)
        self.losses += answer.losses
        self.peak_mb = answer.peak_mb
        return answer


@contextmanager
def running(engines: list[Engine], config: TrainConfig) -> Iterator[list[Running]]:
    """All of them at their second step, started one after another; ended with the block."""
    started: list[Running] = []
    try:
        for engine in engines:
            started.append(Running(engine, config))
        yield started
    finally:
        for each in started:
            each.end()


def in_turn(all_: list[Running], steps: int, rounds: int) -> list[list[float]]:
    """Seconds a step of each engine in each round, after steps of each that do not count."""
    slowest = max(each.turn(1).seconds for each in all_)
    steps = max(1, min(steps, int(LONGEST_TURN / slowest)))
    seconds: list[list[float]] = [[] for _ in all_]
    for _ in range(rounds):
        for each, times in zip(all_, seconds, strict=True):
            times.append(each.turn(steps).seconds)
    return seconds


class _Turns:
    """The same, seen from inside: `step_begins` waits there."""

    def __init__(self, pipe: Connection, began: float) -> None:
        self.pipe, self.began = pipe, began  # by time(), which processes share
        self.losses: list[Tensor] = []
        self.left = 1
        self.profiler: Any = None
        self.steps = 1
        self.on_gpu = False

    def step_begins(self) -> None:
        if self.left:
            self.left -= 1
            return
        self._say()
        self.steps, profiled = self.pipe.recv()
        self.left = self.steps - 1
        if profiled:
            import torch

            self.profiler = torch.profiler.profile()
            self.profiler.start()
        self.began = time()

    def _say(self) -> None:
        import torch

        if self.on_gpu:
            torch.cuda.synchronize()
        seconds = (time() - self.began) / self.steps
        products = 0.0
        if self.profiler is not None:
            self.profiler.stop()
            events = [event for event in self.profiler.key_averages() if event.key in PRODUCTS]
            spent = "self_device_time_total" if self.on_gpu else "self_cpu_time_total"
            products = sum(getattr(event, spent) for event in events) / 1e6 / self.steps
            self.profiler = None
        peak = torch.cuda.max_memory_allocated() if self.on_gpu else _peak_bytes()
        losses = [float(loss) for loss in self.losses]
        self.losses.clear()
        self.pipe.send(Turn(seconds=seconds, products=products, peak_mb=peak / 1e6, losses=losses))


def _peak_bytes() -> int:
    """0 where the system does not say; getrusage would count what the process that started this one had."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
        return next(int(line.split()[1]) * 1024 for line in stream if line.startswith("VmHWM"))


def _work(pipe: Connection, engine: Engine, config: TrainConfig, began: float) -> None:
    """The process: until it is killed, or the pipe closes with the other end's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other end answers Ctrl-C
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            _train(_Turns(pipe, began), engine, config, Path(folder))
    except EOFError:
        pass
    except UserFacingError as error:
        pipe.send(error)
    except Exception as error:  # which another process might not be able to read
        pipe.send(InfrastructureError(f"{engine.name}: {type(error).__name__}: {error}"))


def _train(turns: _Turns, engine: Engine, config: TrainConfig, folder: Path) -> None:
    from gpt_pretrain.training.preflight import preflight

    config.data = dataclasses.replace(config.data, batch_size=config.data.batch_size * engine.batch_times)
    if engine.drop_rate is not None:
        config.model = dataclasses.replace(config.model, drop_rate=engine.drop_rate)
    config.trainer = dataclasses.replace(config.trainer, **engine.ways)
    prepared = preflight(config, folder)
    turns.on_gpu = prepared.machine.accelerator == "gpu"
    if engine.kind == "trainer":
        _trainer(turns, config, prepared, folder)
    else:
        _loop(turns, engine, config, prepared)


def _trainer(turns: _Turns, config: TrainConfig, prepared: "Prepared", folder: Path) -> None:
    """The whole program: its data loading, callbacks and logging."""
    import lightning as L

    from gpt_pretrain.training.train import train

    accumulate = prepared.plan.accumulate

    class Wait(L.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx % accumulate == 0 and batch_idx:
                turns.step_begins()

        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            turns.losses.append(outputs["loss"].detach())

    turns.left = 0
    train(config, prepared, folder, callbacks=[Wait()])


def _loop(turns: _Turns, engine: Engine, config: TrainConfig, prepared: "Prepared") -> None:
    import torch

    from gpt_pretrain.benchmark.decoding import transformers_model
    from gpt_pretrain.training.datamodule import TrainBatches
    from gpt_pretrain.training.train import build_module, keep_freed_memory

    if engine.keeps_memory:
        keep_freed_memory()
    ours = build_module(config, prepared)  # the same initial weights
    kind = "cuda" if turns.on_gpu else "cpu"
    model = transformers_model(ours.model) if engine.kind == "transformers" else ours.model
    model.to(kind).train()
    optimizer = _optimizer(engine, model, config)
    batches = TrainBatches(
        prepared.corpus,
        config.data,
        prepared.plan,
        context_length=prepared.model.context_length,
        rank=0,
        seed=config.seed,
    )
    narrow = engine.autocast and prepared.machine.precision.startswith("bf16")
    accumulate, limit = prepared.plan.accumulate, config.trainer.grad_clip or float("inf")
    turns.left = 0
    for k in range(len(batches)):
        if k % accumulate == 0 and k:
            turns.step_begins()
        batch = {name: values.to(kind) for name, values in batches[k].items()}
        with torch.autocast(kind, torch.bfloat16, enabled=narrow):
            loss = _loss(engine, model, batch)
        (loss / accumulate).backward()
        turns.losses.append(loss.detach())
        if (k + 1) % accumulate == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
            optimizer.zero_grad()


def _optimizer(engine: Engine, model: "torch.nn.Module", config: TrainConfig) -> "torch.optim.Optimizer":
    """The settings' own; for the chapter's, AdamW as torch has it."""
    import torch

    from gpt_pretrain.training.optim import build_optimizer

    if engine.fused:
        return build_optimizer(model, config.optimizer)
    return torch.optim.AdamW(model.parameters(), lr=config.optimizer.lr, foreach=False)


def _loss(engine: Engine, model: "torch.nn.Module", batch: Any) -> "Tensor":
    from gpt_pretrain.loss import next_token_loss

    if engine.kind == "transformers":
        return next_token_loss(model(input_ids=batch["inputs"]).logits, batch["targets"])
    loss: Tensor = model(batch["inputs"], targets=batch["targets"])
    return loss
