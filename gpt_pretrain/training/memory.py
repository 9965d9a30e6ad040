"""Whether a run fits into its devices' memory, and the strategy that lets it."""

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from gpt_pretrain.config import ModelConfig, OptimizerConfig, TrainConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.training.estimate import DEVICES, Memory, estimate_memory
from gpt_pretrain.training.machine import Machine

if TYPE_CHECKING:
    import torch

UNCOUNTED = 1e9  # bytes of a GPU that estimates leave out: CUDA's own, and the allocator's fragments


def needed_memory(config: TrainConfig, machine: Machine, model: ModelConfig, micro_steps: int) -> Memory:
    """Bytes on each device at the peak of a step."""
    from gpt_pretrain.training.ways import find_ways  # torch takes seconds

    return estimate_memory(
        model,
        config.optimizer,
        batch_size=config.data.batch_size,
        precision=machine.precision,
        shards=machine.world_size if machine.strategy == "fsdp" else 1,
        micro_steps=micro_steps,
        recompute=config.trainer.activation_checkpointing,
        on_cpu=machine.accelerator == "cpu",
        loss_in_place=find_ways(config.trainer, machine, model).loss == "in_place",
    )


def with_strategy(config: TrainConfig, machine: Machine, model: ModelConfig, micro_steps: int) -> Machine:
    """`trainer.strategy=auto` answered: shards where copies do not fit into the devices and shards do."""
    there = available_bytes(config, machine)
    if config.trainer.strategy != "auto" or machine.strategy == "one" or there is None:
        return machine
    shards = replace(machine, strategy="fsdp")
    copies_fit, shards_fit = (
        needed_memory(config, each, model, micro_steps).total <= there for each in (machine, shards)
    )
    return shards if shards_fit and not copies_fit and machine.precision != "16-mixed" else machine


def available_bytes(config: TrainConfig, machine: Machine) -> float | None:
    """Bytes that estimates may come to on each device: of the planned one, or of what is here."""
    total = memory_bytes(machine) if config.plan_device is None else DEVICES[config.plan_device].memory
    return total if total is None or machine.accelerator != "gpu" else total - UNCOUNTED


def check_memory(
    machine: Machine, model: ModelConfig, optimizer: OptimizerConfig, batch_size: int, *, may_shard: bool
) -> None:
    """Raise InputError for a plan that cannot be: what it needs at the very least is more than there is.

    Counted are weights, gradients, the optimizer's moments and one batch's logits; activations come on top.
    """
    total = memory_bytes(machine)
    if total is None:
        return
    width, size = model.emb_dim, 2 if machine.precision == "bf16-true" else 4
    embeddings = (2 - model.tie_weights) * model.vocab_size + model.context_length
    n_params = width * (embeddings + 12 * width * model.n_layers)
    copies = {"sgd": 2, "muon": 3}.get(optimizer.name, 4)  # Adam has two moments a weight
    logits = 2 * batch_size * model.context_length * model.vocab_size  # bytes; bfloat16's, at the least
    shards = machine.world_size if may_shard else 1  # of weights and all that belongs to them
    needed = copies * size * n_params // shards + logits
    if needed > total:
        raise InputError(
            f"{n_params:,} parameters and data.batch_size={batch_size} need {_gib(needed)} to train, and "
            f"there are {_gib(total)} a process: choose a smaller model or batch"
        )


def memory_bytes(machine: Machine) -> int | None:
    """Bytes that one of the processes can have at most; None where the system does not tell."""
    if machine.accelerator == "gpu":
        import torch

        return int(torch.cuda.get_device_properties(0).total_memory)
    if machine.accelerator == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // machine.devices
    return None


def memory_mb(device: "torch.device") -> float | None:
    """10^6 bytes: the most that tensors have taken of a GPU so far, or what this process takes now.

    None where the system does not say.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return None


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB"
