"""A plan that cannot be is refused before anything starts."""

import pytest

from gpt_pretrain.config import ModelConfig, TrainerConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.training.machine import Machine, find_machine

CPU = Machine(accelerator="cpu", devices=1, num_nodes=1, precision="32-true", strategy="one")
GPT2 = ModelConfig(vocab_size=50257, context_length=1024, emb_dim=768, n_heads=12, n_layers=12)


def test_processes_far_beyond_the_cores_are_refused():
    with pytest.raises(
        InputError, match=r"trainer\.devices=5000: this machine has \d+ processors: set \d+ or less"
    ):
        find_machine(TrainerConfig(accelerator="cpu", devices=5000))
