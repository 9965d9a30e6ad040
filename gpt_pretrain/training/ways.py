"""Which of several ways a training step takes that come to the same, told in one line at the start."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gpt_pretrain.config import ModelConfig, TrainerConfig
from gpt_pretrain.errors import InfrastructureError, InputError
from gpt_pretrain.loss import head_loss, head_loss_in_place
from gpt_pretrain.model import Block, CausalSelfAttention, Dropout, GPTModel, Linear
from gpt_pretrain.training.float8 import float8_linear
from gpt_pretrain.training.machine import Machine, lacks_for_compiling

PADDED_TO = 64  # columns of the head: rows of 128 bytes in bfloat16
WORTH_COMPILING = 5e16  # FLOPs on a device: some minutes of a GPU, where compiling takes one


@dataclass(kw_only=True, slots=True, frozen=True)
class Ways:
    """The settings of the same names, `auto` answered."""

    attention: str  # sdpa, torch's function, or products
    dropout_kernel: str  # torch or bits
    loss: str  # torch or in_place
    pad_vocabulary: bool = False
    residual: str = "float32"  # or bfloat16
    tf32: bool = False
    fp8: bool = False
    compile: bool = False
    why: str = ""  # compiled or not, where that was left to auto

    def __str__(self) -> str:
        """As settings that could be typed; those that are seldom on are left out where they are not."""
        taken = dataclasses.asdict(self)
        seldom = {"pad_vocabulary": False, "residual": "float32", "tf32": False, "fp8": False}
        words = [
            f"{key}={str(way).lower()}"
            for key, way in taken.items()
            if key != "why" and (key not in seldom or way != seldom[key])
        ]
        return " ".join(words) + (self.why and f" ({self.why})")


def find_ways(trainer: TrainerConfig, machine: Machine, model: ModelConfig, flops: float = 0.0) -> Ways:
    """`auto` takes what was faster where it was measured, on CPUs; elsewhere and for the book torch's.

    Torch's attention has no fast way with dropout on a CPU. GPUs multiply odd numbers of columns slowly, as
    CPUs do in float32, and profit from a narrow residual stream and from compiling, which a run of so many
    `flops` on each device may be too short for. Raises InputError for what cannot be.
    """
    on_gpu, fast = machine.accelerator == "gpu", machine.accelerator == "cpu" and trainer.draws != "book"
    compiled, why = _compiled_or_why(trainer.compile, machine, flops)
    found = {
        "attention": "products" if fast and model.drop_rate else "sdpa",
        "dropout_kernel": "bits" if fast else "torch",
        "loss": "in_place" if fast else "torch",
        "pad_vocabulary": "true" if on_gpu or (fast and machine.precision == "32-true") else "false",
        "residual": "bfloat16" if on_gpu and machine.precision == "bf16-mixed" else "float32",
    }
    given = {key: getattr(trainer, key) for key in found}
    taken = {key: way if given[key] == "auto" else given[key] for key, way in found.items()}
    if taken["residual"] == "bfloat16" and machine.precision != "bf16-mixed":
        raise InputError(
            f"trainer.residual=bfloat16 needs trainer.precision=bf16-mixed, and it is {machine.precision}"
        )
    padded = taken.pop("pad_vocabulary") == "true" and model.vocab_size % PADDED_TO > 0
    return Ways(**taken, pad_vocabulary=padded, tf32=trainer.tf32, fp8=trainer.fp8, compile=compiled, why=why)


def take(ways: Ways, model: GPTModel) -> None:
    """Let the model go these ways in training; its parameters and their names stay as they are."""
    model.narrow_residual = ways.residual == "bfloat16"
    loss = head_loss_in_place if ways.loss == "in_place" else head_loss
    model.head_loss = partial(loss, multiple=PADDED_TO if ways.pad_vocabulary else 1)
    if torch.cuda.is_available():  # the process's own: an earlier run may have set it
        torch.set_float32_matmul_precision("high" if ways.tf32 else "highest")
    for module in model.modules():
        _take(ways, module)
    if ways.compile:
        torch.compiler.reset()  # a sweep's earlier shapes would use up the limit of recompilations
        if ways.loss == "torch":  # the other is written by hand
            model.head_loss = _compiled(model.head_loss)
        trained_by = _compiled(Block.step)  # one for all: blocks differ in their numbers alone
        for block in model.blocks:
            block.trained_by = trained_by  # type: ignore[assignment]


def _take(ways: Ways, module: nn.Module) -> None:
    if isinstance(module, CausalSelfAttention):
        module.by_products = ways.attention == "products"
    elif isinstance(module, Dropout):
        module.from_bits = ways.dropout_kernel == "bits"
    elif isinstance(module, Linear):
        module.trained_by = float8_linear if ways.fp8 else None


def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.compile's, whose failures are one line."""
    fast = torch.compile(function)

    def call(*args: object) -> Tensor:
        try:
            return fast(*args)
        except torch._dynamo.exc.TorchDynamoException as error:
            said = " ".join(str(error).partition("\n\n")[0].split())
            raise InfrastructureError(f"torch.compile: {said:.300}: set trainer.compile=false") from error

    return call


def _compiled_or_why(wanted: str, machine: Machine, flops: float) -> tuple[bool, str]:
    """Whether to compile; with `auto` the reason, too."""
    if wanted != "auto":
        return wanted == "true", ""
    if machine.accelerator != "gpu":
        return False, "no gain on a CPU" if machine.accelerator == "cpu" else "never tried here"
    if flops < WORTH_COMPILING:
        return False, "the run is too short for it"
    lacking = lacks_for_compiling(machine.accelerator)
    return lacking is None, f"it would need {lacking}" if lacking else "the run is long enough"
