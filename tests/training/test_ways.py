"""Which way a training step takes, as its settings, the machine and the model say."""

import pytest

from gpt_pretrain.config import ModelConfig, TrainerConfig
from gpt_pretrain.model import GPTModel
from gpt_pretrain.training.machine import Machine
from gpt_pretrain.training.ways import Ways, find_ways, take
from tests.conftest import QUICK

SHAPE = {"vocab_size": 11, "context_length": 6, "emb_dim": 8, "n_heads": 2, "n_layers": 2}
TORCHS = Ways(attention="sdpa", dropout_kernel="torch", loss="torch")


def machine(accelerator: str) -> Machine:
    return Machine(
        accelerator=accelerator, devices=1, num_nodes=1, precision="32-true", strategy="one", hint=None
    )


def ways(accelerator: str = "cpu", drop_rate: float = 0.0, **settings: str) -> Ways:
    shape = ModelConfig(**SHAPE, drop_rate=drop_rate)
    return find_ways(TrainerConfig(**settings), machine(accelerator), shape)


def test_auto_is_what_was_measured_to_be_faster_and_the_books_run_is_torchs():
    assert ways() == Ways(attention="sdpa", dropout_kernel="bits", loss="in_place")
    assert ways(drop_rate=0.1) == Ways(attention="products", dropout_kernel="bits", loss="in_place")
    assert ways("gpu", 0.1) == ways("mps", 0.1) == ways("cpu", 0.1, draws="book") == TORCHS


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
@pytest.mark.parametrize("attention", ["sdpa", "products"])
@pytest.mark.parametrize("dropout", ["torch", "bits"])
@pytest.mark.parametrize("loss", ["torch", "in_place"])
def test_a_setting_goes_above_auto_and_reaches_every_layer(accelerator, attention, dropout, loss):
    given = {"attention": attention, "dropout_kernel": dropout, "loss": loss}
    model = GPTModel(ModelConfig(**SHAPE, drop_rate=0.1))
    take(ways(accelerator, 0.1, **given), model)
    assert model.loss_in_place == (loss == "in_place")
    drops = [model.drop_emb, *(block.drop_shortcut for block in model.blocks)]
    drops += [block.att.drop_weights for block in model.blocks]
    assert {drop.from_bits for drop in drops} == {dropout == "bits"}
    assert {block.att.by_products for block in model.blocks} == {attention == "products"}


def test_bits_and_the_books_draws_are_refused_together(typed, tmp_path):
    code, said = typed("train", *QUICK, "trainer.draws=book", "trainer.dropout_kernel=bits")
    assert (code, "trainer.dropout_kernel=auto" in said, said.count("\n") <= 3) == (2, True, True), said
    assert not list(tmp_path.iterdir())
