"""Which of several ways a training step takes that come to the same, told in one line at the start."""

from dataclasses import dataclass

from torch import nn

from gpt_pretrain.config import ModelConfig, TrainerConfig
from gpt_pretrain.model import CausalSelfAttention, Dropout, GPTModel
from gpt_pretrain.training.machine import Machine


@dataclass(kw_only=True, slots=True, frozen=True)
class Ways:
    """The settings of the same names, `auto` answered."""

    attention: str  # sdpa, torch's function, or products
    dropout_kernel: str  # torch or bits
    loss: str  # torch or in_place

    def __str__(self) -> str:
        attention = {"sdpa": "scaled_dot_product_attention", "products": "products of matrices"}
        dropout = {"torch": "by torch", "bits": "from random bits"}
        loss = {"torch": "torch's", "in_place": "written over its logits"}
        return (
            f"attention by {attention[self.attention]}, dropout {dropout[self.dropout_kernel]}, "
            f"loss {loss[self.loss]}"
        )


def find_ways(trainer: TrainerConfig, machine: Machine, model: ModelConfig) -> Ways:
    """`auto` takes what was faster where it was measured, on CPUs; elsewhere and for the book torch's.

    Torch's attention has no fast way with dropout on a CPU.
    """
    fast = machine.accelerator == "cpu" and trainer.draws != "book"
    found = {
        "attention": "products" if fast and model.drop_rate else "sdpa",
        "dropout_kernel": "bits" if fast else "torch",
        "loss": "in_place" if fast else "torch",
    }
    given = {key: getattr(trainer, key) for key in found}
    return Ways(**{key: way if given[key] == "auto" else given[key] for key, way in found.items()})


def take(ways: Ways, model: GPTModel) -> None:
    """Let the model go these ways in training; its parameters and their names stay as they are."""
    model.loss_in_place = ways.loss == "in_place"
    for module in model.modules():
        _take(ways, module)


def _take(ways: Ways, module: nn.Module) -> None:
    if isinstance(module, CausalSelfAttention):
        module.by_products = ways.attention == "products"
    elif isinstance(module, Dropout):
        module.from_bits = ways.dropout_kernel == "bits"
