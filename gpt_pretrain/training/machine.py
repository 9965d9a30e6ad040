"""What a run trains on: accelerator, devices, precision. Imports torch only when asked."""

import os
import re
import sysconfig
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from gpt_pretrain.config import TrainConfig, TrainerConfig
from gpt_pretrain.config.fields import check_processes
from gpt_pretrain.errors import InputError
from gpt_pretrain.launch.launchers import SRUN
from gpt_pretrain.launch.process import is_launched, process
from gpt_pretrain.training.estimate import DEVICES


@dataclass(kw_only=True, slots=True, frozen=True)
class Machine:
    accelerator: str  # cpu, gpu or mps, Apple's GPU
    devices: int  # per node
    num_nodes: int
    precision: str  # as Lightning names it
    strategy: str  # one (process), ddp or fsdp
    hint: str | None = None  # what is here and not used

    @property
    def world_size(self) -> int:
        return self.devices * self.num_nodes


def planned_machine(config: TrainConfig) -> Machine:
    """What plan=true plans for: the devices it names, else what is here. Raises InputError."""
    if config.plan_device is None:
        here, n = find_machine(config.trainer), config.plan_devices
        if n is None:
            return here
        return replace(here, devices=n, num_nodes=1, strategy=strategy_for(config.trainer, n, here.precision))
    if config.plan_device not in DEVICES:
        raise InputError(f"plan.device={config.plan_device}: no such device (there are {', '.join(DEVICES)})")
    devices = config.plan_devices or (config.trainer.devices or 1) * (config.trainer.num_nodes or 1)
    precision = "bf16-mixed" if config.trainer.precision == "auto" else config.trainer.precision
    return Machine(
        accelerator="gpu",
        devices=devices,
        num_nodes=1,
        precision=precision,
        strategy=strategy_for(config.trainer, devices, precision),
    )


def find_machine(trainer: TrainerConfig) -> Machine:
    """What the settings come to here; what torchrun started, they may not contradict. Raises InputError."""
    import torch

    n_gpus = torch.cuda.device_count()
    accelerator = _accelerator(trainer.accelerator, n_gpus)
    check_precision(trainer.precision, accelerator)
    _check_narrow_products(trainer, accelerator)
    if trainer.compile == "true" and (lacking := lacks_for_compiling(accelerator)):
        raise InputError(f"trainer.compile=true needs {lacking}: install it, or set trainer.compile=false")
    devices = trainer.devices or (n_gpus if accelerator == "gpu" else 1)
    if is_launched():
        devices = _devices_launched(trainer)
    elif (trainer.num_nodes or 1) > 1:  # it would wait for the others for half an hour
        raise InputError(
            f"trainer.num_nodes={trainer.num_nodes}: this process was started alone: start one a machine "
            f"with torchrun --nnodes={trainer.num_nodes} --nproc-per-node=<devices> train.py ..., "
            f"or all with srun --nodes={trainer.num_nodes} --ntasks-per-node=<devices> python train.py ..."
        )
    if accelerator == "cpu":
        check_processes("trainer.devices", devices)
    if accelerator == "gpu" and devices > n_gpus:
        raise InputError(_too_few_gpus(devices, n_gpus))
    if accelerator == "mps" and devices * process().num_nodes > 1:
        raise InputError("trainer=mps is one device: set trainer.devices=1, or trainer=cpu for several")
    unused = trainer.accelerator == "auto" and accelerator == "cpu" and apple_gpu() is not None
    precision, num_nodes = precision_for(trainer.precision, accelerator), process().num_nodes
    return Machine(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        precision=precision,
        strategy=strategy_for(trainer, devices * num_nodes, precision),
        hint="this machine has Apple's GPU too: trainer=mps trains on it" if unused else None,
    )


def strategy_for(trainer: TrainerConfig, world_size: int, precision: str) -> str:
    """Copies unless shards are asked for: whether auto's copies fit, memory.py finds. Raises InputError."""
    if trainer.strategy == "fsdp" and precision == "16-mixed":
        raise InputError(
            "trainer.strategy=fsdp scales no float16 losses: set trainer.precision=bf16-mixed or 32-true"
        )
    if world_size == 1:
        return "one"
    return "fsdp" if trainer.strategy == "fsdp" else "ddp"


def _accelerator(wanted: str, n_gpus: int) -> str:
    """What the setting means here; `auto` takes no Apple GPU, which was never tried. Raises InputError."""
    apple = apple_gpu()
    if wanted == "gpu" and n_gpus == 0:
        other = "trainer=mps for Apple's" if apple else "trainer=cpu"
        raise InputError(f"trainer.accelerator=gpu: this machine has no GPU that torch can use; set {other}")
    if wanted == "mps" and apple is None:
        other = "gpu" if n_gpus else "cpu"
        raise InputError(
            f"trainer.accelerator=mps: this machine has no Apple GPU that torch can use; set trainer={other}"
        )
    if wanted == "auto":
        return "gpu" if n_gpus else "cpu"
    return wanted


def apple_gpu() -> str | None:
    """The name of Apple's GPU, as in Apple M3 Pro; None where torch can use none."""
    import torch

    return torch.backends.mps.get_name() if torch.backends.mps.is_available() else None


def check_precision(wanted: str, accelerator: str) -> None:
    """Raise InputError where Lightning or torch would silently take another one."""
    import torch

    if accelerator != "gpu" and wanted == "16-mixed":  # on a CPU Lightning would take bf16-mixed
        raise InputError(
            "trainer.precision=16-mixed needs an NVIDIA GPU: set trainer.precision=bf16-mixed or 32-true"
        )
    # torch warns, and goes on in float32
    if accelerator == "mps" and wanted.startswith("bf16") and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise InputError(
            f"trainer.precision={wanted} needs macOS 14 on Apple's GPU: set trainer.precision=32-true"
        )


def _check_narrow_products(trainer: TrainerConfig, accelerator: str) -> None:
    """Raise InputError where the hardware has no such products."""
    if trainer.tf32 and not (accelerator == "gpu" and multiplies_tf32()):
        raise InputError("trainer.tf32=true needs an NVIDIA GPU from Ampere on: leave it out")
    if trainer.fp8 and not (accelerator == "gpu" and multiplies_float8()):
        raise InputError("trainer.fp8=true needs an NVIDIA GPU from Ada and Hopper on: leave it out")


def multiplies_tf32() -> bool:
    """Whether this machine's first GPU has products of float32 with 10 bits of mantissa."""
    import torch

    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def multiplies_float8() -> bool:
    """Whether this machine's first GPU has products of 8-bit numbers with an exponent."""
    import torch

    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)


def lacks_for_compiling(accelerator: str) -> str | None:
    """What torch.compile needs and this machine lacks; None where all is there."""
    import torch

    if accelerator == "cpu":
        given = os.environ.get("CXX", "g++")
        return None if which(given) or which("clang++") else "a C++ compiler, such as g++"
    if accelerator == "gpu" and find_spec("triton") is None:
        return "Triton"
    if accelerator == "gpu" and torch.cuda.is_available() and torch.cuda.get_device_capability() < (7, 0):
        return "a GPU from Volta on"
    if not any(map(which, [os.environ.get("CC", "gcc"), "clang", "cc"])):
        return "a C compiler, such as gcc"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "Python's headers, such as python3-dev"
    return None


def _devices_launched(trainer: TrainerConfig) -> int:
    """What a launcher started on each machine. Raises InputError where the settings say something else."""
    started, launcher = process(), process().launcher
    assert launcher is not None
    for name, given, launched, option in (
        ("devices", trainer.devices, started.local_world_size, launcher.devices),
        ("num_nodes", trainer.num_nodes, started.num_nodes, launcher.nodes),
    ):
        if given not in (launched, None):
            raise InputError(
                f"trainer.{name}={given}, but {launcher.name} started {option}={launched}: "
                f"set trainer.{name}={launched} or null, or start with {launcher.name} {option}={given}"
            )
    return started.local_world_size


def _too_few_gpus(devices: int, n_gpus: int) -> str:
    launcher = process().launcher if is_launched() else None
    if launcher is SRUN and n_gpus == 1:
        return (
            f"srun started {devices} tasks on this machine, and this one sees one GPU only: ask for "
            "--gpus-per-node instead of --gpus-per-task, or add --gpu-bind=none"
        )
    given = "trainer.devices" if launcher is None else f"{launcher.name} {launcher.devices}"
    return f"{given}={devices}: this machine has {n_gpus} GPU{'s' * (n_gpus != 1)}"


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
    if accelerator == "mps":  # before the M3 it is emulated; what torch does with it needs macOS 14
        generation = re.match(r"Apple M(\d+)", apple_gpu() or "")
        is_new = generation is not None and int(generation[1]) >= 3
        return is_new and torch.backends.mps.is_macos_or_newer(14, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
