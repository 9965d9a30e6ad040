"""What a run trains on: accelerator, devices, precision. Imports torch only when asked."""

import os
from dataclasses import dataclass

from gpt_pretrain.config import TrainerConfig
from gpt_pretrain.errors import InputError


@dataclass(kw_only=True, slots=True, frozen=True)
class Machine:
    accelerator: str  # cpu or gpu
    devices: int  # per node
    num_nodes: int
    precision: str  # as Lightning names it

    @property
    def world_size(self) -> int:
        return self.devices * self.num_nodes


def find_machine(trainer: TrainerConfig) -> Machine:
    """What the settings come to here; torchrun's word goes before theirs. Raises InputError."""
    import torch

    n_gpus = torch.cuda.device_count()
    if trainer.accelerator == "gpu" and n_gpus == 0:
        raise InputError(
            "trainer.accelerator=gpu: this machine has no GPU that torch can use; set trainer=cpu"
        )
    accelerator = "cpu" if trainer.accelerator == "cpu" or n_gpus == 0 else "gpu"
    if accelerator == "cpu" and trainer.precision == "16-mixed":  # Lightning would take bf16-mixed
        raise InputError(
            "trainer.precision=16-mixed needs a GPU: set trainer.precision=bf16-mixed or 32-true"
        )
    devices, num_nodes = trainer.devices or (n_gpus if accelerator == "gpu" else 1), trainer.num_nodes
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
    elif accelerator == "gpu" and devices > n_gpus:
        raise InputError(f"trainer.devices={devices}: this machine has {n_gpus} GPUs")
    precision = precision_for(trainer.precision, accelerator)
    return Machine(accelerator=accelerator, devices=devices, num_nodes=num_nodes, precision=precision)


def precision_for(wanted: str, accelerator: str) -> str:
    """`auto` is bf16-mixed where the hardware multiplies bfloat16 itself, else full precision."""
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if multiplies_bfloat16(accelerator) else "32-true"


def multiplies_bfloat16(accelerator: str) -> bool:
    """Whether the hardware has instructions for it. Elsewhere it is emulated, slower than float32."""
    import torch

    if accelerator == "gpu":
        return torch.cuda.get_device_capability() >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
