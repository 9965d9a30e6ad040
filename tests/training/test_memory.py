"""What a run needs of its devices' memory: refused where it is not there, spread where that lets it fit."""

from dataclasses import replace

import pytest

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import AdamWConfig, ModelConfig, SGDConfig, TrainConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.training import memory as module
from gpt_pretrain.training.machine import Machine
from gpt_pretrain.training.memory import UNCOUNTED, check_memory, needed_memory, with_strategy

CPU = Machine(accelerator="cpu", devices=1, num_nodes=1, precision="32-true", strategy="one")
EIGHT = Machine(accelerator="gpu", devices=8, num_nodes=1, precision="bf16-mixed", strategy="ddp")
GPT2 = ModelConfig(vocab_size=50257, context_length=1024, emb_dim=768, n_heads=12, n_layers=12)


@pytest.mark.parametrize(("optimizer", "copies"), [(AdamWConfig(), 4), (SGDConfig(), 2)])
def test_weights_gradients_and_moments_have_to_fit_into_memory(monkeypatch, optimizer, copies):
    n_params = 124_318_464  # GPT-2's, but for biases and norms
    least = copies * 4 * n_params + 2 * 1024 * 50257
    monkeypatch.setattr(module, "memory_bytes", lambda machine: least)
    check_memory(CPU, GPT2, optimizer, 1, may_shard=False)
    monkeypatch.setattr(module, "memory_bytes", lambda machine: least - 1)
    with pytest.raises(InputError, match=r"124,318,464 parameters and data\.batch_size=1 need \d\.\d GiB"):
        check_memory(CPU, GPT2, optimizer, 1, may_shard=False)


@pytest.mark.parametrize(
    ("shape", "batch"),
    [({"n_layers": 10**7}, 1), ({"vocab_size": 2**50}, 1), ({}, 10**12), ({"emb_dim": 768 * 10**6}, 1)],
)
def test_what_no_machine_has_is_refused_at_once(shape, batch):
    given = {
        "vocab_size": 50257,
        "context_length": 1024,
        "emb_dim": 768,
        "n_heads": 12,
        "n_layers": 12,
    } | shape
    with pytest.raises(InputError, match="choose a smaller model or batch"):
        check_memory(CPU, ModelConfig(**given), AdamWConfig(), batch, may_shard=False)


def test_shards_are_chosen_exactly_where_copies_do_not_fit_and_shards_do(monkeypatch):
    config = compose("train", TrainConfig, ["optimizer=adamw"])
    copies = needed_memory(config, EIGHT, GPT2, 1).total
    shards = needed_memory(config, replace(EIGHT, strategy="fsdp"), GPT2, 1).total
    assert shards < copies

    def chosen(there, machine=EIGHT, strategy="auto"):
        monkeypatch.setattr(module, "memory_bytes", lambda machine: there and there + UNCOUNTED)
        return with_strategy(
            replace(config, trainer=replace(config.trainer, strategy=strategy)), machine, GPT2, 1
        ).strategy

    assert chosen(copies) == "ddp"
    assert chosen(copies - 1) == chosen(shards) == "fsdp"
    assert chosen(shards - 1) == "ddp"  # neither fits
    assert chosen(None) == "ddp"  # the system does not say
    assert (
        chosen(shards, replace(EIGHT, precision="16-mixed")) == "ddp"
    )  # float16 losses are not scaled there
    assert chosen(shards, replace(EIGHT, devices=1, strategy="one")) == "one"
    assert chosen(shards, strategy="ddp") == "ddp"


def test_check_memory_leaves_room_for_shards(monkeypatch):
    with_copies = 4 * 4 * 124_318_464
    monkeypatch.setattr(module, "memory_bytes", lambda machine: with_copies)
    with pytest.raises(InputError):
        check_memory(EIGHT, GPT2, AdamWConfig(), 1, may_shard=False)
    check_memory(EIGHT, GPT2, AdamWConfig(), 1, may_shard=True)
