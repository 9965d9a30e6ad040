"""A plan that cannot be is refused before anything starts."""

import pytest
import torch

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import ModelConfig, TrainConfig, TrainerConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.training import machine
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


@pytest.mark.parametrize(
    ("capability", "tf32", "fp8", "compiles"),
    [
        ((6, 1), False, False, False),
        ((7, 5), False, False, True),
        ((8, 0), True, False, True),
        ((8, 9), True, True, True),
        ((9, 0), True, True, True),
    ],
)
def test_a_gpu_is_refused_what_its_kind_does_not_have(monkeypatch, capability, tf32, fp8, compiles):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *device: capability)
    monkeypatch.setattr(machine, "find_spec", lambda name: object())
    monkeypatch.setattr(machine, "which", lambda name: name)
    monkeypatch.setattr(machine.Path, "is_file", lambda path: True)
    for setting, can, told in (
        ({"tf32": True}, tf32, r"tf32=true needs an NVIDIA GPU from Ampere on"),
        ({"fp8": True}, fp8, r"fp8=true needs an NVIDIA GPU from Ada and Hopper on"),
        ({"compile": "true"}, compiles, r"compile=true needs a GPU from Volta on"),
    ):
        trainer = TrainerConfig(accelerator="gpu", **setting)
        if can:
            assert find_machine(trainer).accelerator == "gpu"
        else:
            with pytest.raises(InputError, match=told):
                find_machine(trainer)


@pytest.mark.parametrize("setting", ["tf32", "fp8"])
def test_a_cpu_has_no_products_of_a_gpus_kind(setting):
    with pytest.raises(InputError, match=f"trainer.{setting}=true needs an NVIDIA GPU"):
        find_machine(TrainerConfig(accelerator="cpu", **{setting: True}))
