"""Which accelerator and precision the settings come to on machines that the code is told of."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import TrainConfig, TrainerConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.runs.pretrained import pick_device
from gpt_pretrain.training import machine, module
from gpt_pretrain.training.preflight import preflight
from gpt_pretrain.training.train import train
from tests.conftest import QUICK


@pytest.fixture
def told(monkeypatch):
    """told(apple="Apple M3", macos=14, gpus=1): what torch says that the machine has."""

    def tell(apple=None, macos=14, gpus=0):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple is not None)
        monkeypatch.setattr(torch.backends.mps, "get_name", lambda: apple)
        monkeypatch.setattr(
            torch.backends.mps, "is_macos_or_newer", lambda major, minor: (macos, 0) >= (major, minor)
        )

    return tell


def found(**settings):
    return machine.find_machine(TrainerConfig(**settings))


@pytest.mark.parametrize(
    ("name", "macos", "precision"),
    [
        ("Apple M1", 15, "32-true"),
        ("Apple M2 Max", 15, "32-true"),
        ("Apple M3 Pro", 15, "bf16-mixed"),
        ("Apple M10", 14, "bf16-mixed"),
        ("Apple M4", 13, "32-true"),
        ("Apple Paravirtual device", 15, "32-true"),
    ],
)
def test_apple_s_gpu_trains_in_bfloat16_where_it_has_it(told, name, macos, precision):
    told(apple=name, macos=macos)
    chosen = found(accelerator="mps")
    assert (chosen.accelerator, chosen.devices, chosen.world_size) == ("mps", 1, 1)
    assert (chosen.precision, chosen.hint) == (precision, None)
    assert found(accelerator="mps", precision="32-true").precision == "32-true"


def test_auto_leaves_apple_s_gpu_alone_and_says_that_it_exists(told):
    told(apple="Apple M3")
    chosen = found()
    assert (chosen.accelerator, "trainer=mps" in chosen.hint) == ("cpu", True)
    assert found(accelerator="cpu").hint is None
    told()
    assert (found().accelerator, found().hint) == ("cpu", None)
    told(gpus=2)
    assert (found().accelerator, found().devices, found().hint) == ("gpu", 2, None)


@pytest.mark.parametrize(
    ("here", "settings", "said"),
    [
        ({}, {"accelerator": "mps"}, "no Apple GPU that torch can use; set trainer=cpu"),
        ({"gpus": 1}, {"accelerator": "mps"}, "no Apple GPU that torch can use; set trainer=gpu"),
        ({"apple": "Apple M3"}, {"accelerator": "gpu"}, "set trainer=mps for Apple's"),
        ({}, {"accelerator": "gpu"}, "no GPU that torch can use; set trainer=cpu"),
        ({"apple": "Apple M3"}, {"accelerator": "mps", "devices": 2}, "trainer=mps is one device"),
        ({"apple": "Apple M3"}, {"accelerator": "mps", "precision": "16-mixed"}, "needs an NVIDIA GPU"),
        ({"apple": "M3", "macos": 13}, {"accelerator": "mps", "precision": "bf16-mixed"}, "needs macOS 14"),
        ({"apple": "M3", "macos": 13}, {"accelerator": "mps", "precision": "bf16-true"}, "needs macOS 14"),
    ],
)
def test_what_a_machine_lacks_is_refused_in_one_line_with_what_it_has(told, here, settings, said):
    told(**here)
    with pytest.raises(InputError) as refused:
        found(**settings)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_generating_takes_apple_s_gpu_where_it_is_asked_for(told):
    told(apple="Apple M3")
    assert pick_device("mps") == torch.device("mps")
    assert pick_device("auto") == torch.device("cpu")
    told()
    with pytest.raises(InputError, match=r"device=mps: .* set device=cpu"):
        pick_device("mps")


def test_the_option_composes():
    assert compose("train", TrainConfig, ["trainer=mps"]).trainer.accelerator == "mps"


class Apple(torch.Tensor):
    """A tensor of Apple's GPU, as far as that can be told on a CPU."""

    device = torch.device("mps")

    def double(self):
        raise TypeError("the MPS framework doesn't support float64")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_sums_are_exact_also_where_the_device_has_no_float64():
    values = torch.tensor([1.5, 2.0])
    for tensor in (values, values.as_subclass(Apple)):
        assert module.exact(tensor).dtype == torch.float64
        assert module.exact(tensor).tolist() == [1.5, 2.0]
    with pytest.raises(TypeError):
        values.as_subclass(Apple).double()


class NoFloat64(TorchDispatchMode):
    """Notes every operation that makes a float64 tensor."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            self.found.append(str(function))
        return result


@pytest.mark.trains
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_a_run_computes_nothing_in_float64_but_those_sums(tmp_path, monkeypatch, optimizer):
    mode, exact = NoFloat64(), module.exact
    options = [*QUICK, f"optimizer={optimizer}", "trainer.max_steps=2", "trainer.eval_batches=1"]
    config = compose("train", TrainConfig, options)
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(module, "exact", lambda values: values.float())
    with mode:
        train(config, preflight(config, tmp_path / "run"), tmp_path / "run")
    assert mode.found == []
    monkeypatch.setattr(module, "exact", exact)
    (tmp_path / "other").mkdir()
    with mode:
        train(config, preflight(config, tmp_path / "other"), tmp_path / "other")
    assert mode.found
