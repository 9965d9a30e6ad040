"""One device's part of a step where a model lies in shards (FSDP2), on however many devices there were to be.

python -m gpt_pretrain.benchmark.shards model=mini

torch's `fake` process group exchanges nothing, each collective returns at once: what is left is the device's
own work, copies included, and its share of weights, gradients and optimizer state, beside what a plan says.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from gpt_pretrain.cli.program import command
from gpt_pretrain.config import AdamWConfig, ModelConfig, ModelSettings, resolve_model
from gpt_pretrain.config.fields import number
from gpt_pretrain.errors import InputError
from gpt_pretrain.terminal.text import show
from gpt_pretrain.training.estimate import estimate_memory

VOCABULARY = 50257


@dataclass(kw_only=True, slots=True)
class BenchmarkShardsConfig:
    model: ModelSettings
    devices: list[int] = field(default_factory=lambda: [1, 2, 8, 64, 1024])  # numbers of them, in turn
    batch_size: int = number(4, at_least=1)  # sequences a device
    steps: int = number(5, at_least=2)  # of each, of which the first is not timed
    debug: bool = False  # tracebacks instead of messages

    def check(self) -> None:
        if not self.devices or min(self.devices) < 1:
            raise InputError(f"devices={self.devices} must be numbers of 1 or more")


@command(
    "benchmark_shards",
    BenchmarkShardsConfig,
    examples={"python -m gpt_pretrain.benchmark.shards devices=[8,64]": "as if there were eight, and 64"},
)
def benchmark_shards(config: BenchmarkShardsConfig, run: Path) -> None:
    """Time and weigh one device's part of a sharded step, float32 and AdamW; nothing is exchanged."""
    model = resolve_model(config.model, read=None, tokenizer_vocab_size=VOCABULARY)
    show("devices   s/step   states, MiB   by the plan, MiB")
    for devices in config.devices:
        seconds, states = measure(model, devices, config.batch_size, config.steps)
        planned = planned_states(model, devices)
        show(f"{devices:7,}   {seconds:6.3f}   {states / 2**20:11.4g}   {planned / 2**20:16.4g}")


def measure(config: ModelConfig, devices: int, batch_size: int, steps: int) -> tuple[float, int]:
    """Seconds of a step, and bytes of weights, gradients and optimizer state, on one of `devices`."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from gpt_pretrain.model import GPTModel
    from gpt_pretrain.training.optim import build_optimizer
    from gpt_pretrain.training.shards import local, shard

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    wait: Callable[[], object] = torch.cuda.synchronize if kind == "cuda" else lambda: None
    dist.init_process_group("fake", rank=0, world_size=devices, store=FakeStore())
    try:
        with torch.device(kind):
            model = GPTModel(config)
            ids = torch.randint(config.vocab_size, (batch_size, config.context_length + 1))
        shard(model, init_device_mesh(kind, (devices,)), in_bfloat16=False)
        optimizer = build_optimizer(model, AdamWConfig())
        seconds = []
        for _ in range(steps):
            wait()
            began = perf_counter()
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(
                model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
            ).backward()
            optimizer.step()
            wait()
            seconds.append(perf_counter() - began)
        moments = [value for state in optimizer.state.values() for value in state.values()]
        kept = [*model.parameters(), *(weight.grad for weight in model.parameters()), *moments]
        states = sum(local(tensor).nbytes for tensor in kept if tensor is not None and tensor.dim() > 0)
    finally:
        dist.destroy_process_group()
    return statistics.median(seconds[1:]), states


def planned_states(model: ModelConfig, devices: int) -> float:
    """Bytes that a plan expects of the same between two steps, where no block is whole."""
    memory = estimate_memory(model, AdamWConfig(), batch_size=1, precision="32-true", shards=devices)
    return 2 * memory.gradients + memory.optimizer  # weights take what gradients do


if __name__ == "__main__":
    benchmark_shards()
