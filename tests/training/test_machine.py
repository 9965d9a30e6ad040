"""A plan that cannot be is refused before anything starts."""

import pytest

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import ModelConfig, TrainConfig, TrainerConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.training.machine import Machine, find_machine, planned_machine

CPU = Machine(accelerator="cpu", devices=1, num_nodes=1, precision="32-true", strategy="one")
GPT2 = ModelConfig(vocab_size=50257, context_length=1024, emb_dim=768, n_heads=12, n_layers=12)


def test_processes_far_beyond_the_cores_are_refused():
    with pytest.raises(
        InputError, match=r"trainer\.devices=5000: this machine has \d+ processors: set \d+ or less"
    ):
        find_machine(TrainerConfig(accelerator="cpu", devices=5000))


@pytest.mark.parametrize("device", [None, "h100"])
@pytest.mark.parametrize(
    ("strategy", "devices", "planned"),
    [("auto", 4, "ddp"), ("ddp", 4, "ddp"), ("fsdp", 4, "fsdp"), ("fsdp", 1, "one")],
)
@pytest.mark.parametrize("here", [1, 2])
def test_a_plan_has_the_strategy_of_the_devices_that_it_names_whatever_is_here(
    device, strategy, devices, planned, here
):
    words = [f"trainer.devices={here}", f"trainer.strategy={strategy}", f"plan.devices={devices}"]
    words += [] if device is None else [f"plan.device={device}"]
    machine = planned_machine(compose("train", TrainConfig, ["trainer=cpu", *words]))
    assert (machine.world_size, machine.strategy) == (devices, planned)


def test_a_plan_is_refused_what_a_run_is():
    words = ["trainer.strategy=fsdp", "trainer.precision=16-mixed", "plan.device=h100", "plan.devices=4"]
    with pytest.raises(InputError, match=r"trainer\.strategy=fsdp scales no float16 losses"):
        planned_machine(compose("train", TrainConfig, words))
