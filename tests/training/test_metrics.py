"""What is measured beside the loss."""

import pytest

from gpt_pretrain.training.callbacks.metrics import peak_flops
from gpt_pretrain.training.callbacks.samples import Samples
from gpt_pretrain.training.module import GPTModule
from tests.training.test_train import rows, run

pytestmark = pytest.mark.trains


@pytest.mark.parametrize(
    ("gpu", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA L4", 121),
    ],
)
def test_a_gpu_has_the_peak_of_its_own_data_sheet(gpu, tera):
    assert peak_flops(gpu) == tera * 1e12
    assert peak_flops("NVIDIA GeForce GTX 1080") is None


def test_throughput_does_not_count_the_time_that_samples_take(tmp_path, monkeypatch):
    """By a clock on which a step takes a second and a sample a hundred."""
    clock = [0.0]

    def taking(seconds, function):
        def slow(*arguments):
            clock[0] += seconds
            return function(*arguments)

        return slow

    monkeypatch.setattr("gpt_pretrain.training.callbacks.metrics.perf_counter", lambda: clock[0])
    monkeypatch.setattr(GPTModule, "training_step", taking(1.0, GPTModule.training_step))
    monkeypatch.setattr(Samples, "_sample", taking(100.0, Samples._sample))
    rhythms = ["trainer.log_every=4", "trainer.sample_every=3", "trainer.eval_every=8"]
    run(tmp_path, "trainer.max_steps=8", *rhythms)
    measured = [float(row["tokens_per_sec"]) for row in rows(tmp_path) if row["tokens_per_sec"]]
    assert set(measured) == {2 * 64}
