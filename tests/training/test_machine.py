"""A plan that cannot be is refused before anything starts."""

import pytest

from gpt_pretrain.config import AdamWConfig, ModelConfig, SGDConfig, TrainerConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.training import machine as module
from gpt_pretrain.training.machine import Machine, check_memory, find_machine

CPU = Machine(accelerator="cpu", devices=1, num_nodes=1, precision="32-true", strategy="one")
GPT2 = ModelConfig(vocab_size=50257, context_length=1024, emb_dim=768, n_heads=12, n_layers=12)


@pytest.mark.parametrize(("optimizer", "copies"), [(AdamWConfig(), 4), (SGDConfig(), 2)])
def test_weights_gradients_and_moments_have_to_fit_into_memory(monkeypatch, optimizer, copies):
    n_params = 124_318_464  # GPT-2's, but for biases and norms
    least = copies * 4 * n_params + 2 * 1024 * 50257
    monkeypatch.setattr(module, "memory_bytes", lambda machine: least)
    check_memory(CPU, GPT2, optimizer, 1)
    monkeypatch.setattr(module, "memory_bytes", lambda machine: least - 1)
    with pytest.raises(InputError, match=r"124,318,464 parameters and data\.batch_size=1 need \d\.\d GiB"):
        check_memory(CPU, GPT2, optimizer, 1)


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
        check_memory(CPU, ModelConfig(**given), AdamWConfig(), batch)


def test_processes_far_beyond_the_cores_are_refused():
    with pytest.raises(
        InputError, match=r"trainer\.devices=5000: this machine has \d+ processors: set \d+ or less"
    ):
        find_machine(TrainerConfig(accelerator="cpu", devices=5000))
