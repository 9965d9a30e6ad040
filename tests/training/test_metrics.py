"""What is measured beside the loss."""

import json
import math

import pytest
import torch

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.training.callbacks.metrics import peak_flops
from gpt_pretrain.training.callbacks.samples import Samples
from gpt_pretrain.training.module import GPTModule
from gpt_pretrain.training.preflight import preflight
from gpt_pretrain.training.train import train
from tests.training.test_train import SETTINGS, rows, run

pytestmark = pytest.mark.trains


@pytest.mark.parametrize(
    ("gpu", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA L4", 121),
        ("NVIDIA A10G", 125),  # from here on Lightning's own table
        ("NVIDIA GeForce RTX 3090", 35.6),
        ("Tesla V100-SXM2-16GB", 125),  # in float16: it has no bfloat16
        ("Tesla T4", 65),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_a_gpu_has_the_peak_of_its_own_data_sheet(gpu, tera, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: gpu)
    assert peak_flops(torch.device("cuda")) == (None if tera is None else tera * 1e12)
    assert peak_flops(torch.device("cpu")) is None


def test_a_row_holds_everything_measured_and_follows_from_its_losses(tmp_path):
    settings = ["trainer.global_batch_tokens=256", "trainer.max_steps=4", "trainer.eval_every=2"]
    run(tmp_path, *settings, "trainer.grad_clip=0.01")
    written = rows(tmp_path)
    assert list(written[0]) == [
        *("step", "tokens_seen", "epoch", "seconds", "val/loss", "val/perplexity", "val/bits_per_byte"),
        *("train/loss", "train/perplexity", "lr", "grad_norm", "tokens_per_sec", "memory_mb"),
        *("ms/forward", "ms/backward", "ms/optimizer", "ms/data"),  # in the order of their first times
    ]
    for row in written:
        assert int(row["tokens_seen"]) == int(row["step"]) * 256
        for split in ("train", "val"):
            if row[f"{split}/loss"]:
                perplexity = math.exp(float(row[f"{split}/loss"]))
                assert float(row[f"{split}/perplexity"]) == pytest.approx(perplexity)
    assert float(written[1]["grad_norm"]) > 0.01  # before clipping
    val = written[-1]  # tokens are bytes, but for the one that ends a document
    assert float(val["val/bits_per_byte"]) == pytest.approx(float(val["val/loss"]) / math.log(2), rel=0.01)


@pytest.mark.parametrize("eval_batches", [None, 2])
def test_bits_per_byte_are_of_the_bytes_of_the_tokens_that_were_measured(tmp_path, eval_batches):
    """Of UTF-8, and none for the end of a text; a cut by tokens may fall inside a character."""
    text = tmp_path / "a.jsonl"
    text.write_text("\n".join(json.dumps({"text": f"é{n}" * (n % 90)}) for n in range(2, 400)))
    settings = ["tokenizer=gpt2", "data=text_files", f"data.path='{text}'", "data.split=tokens"]
    beat = ["trainer.max_steps=1", f"trainer.eval_batches={eval_batches or 'null'}"]
    config = compose("train", TrainConfig, [*SETTINGS, *settings, *beat])
    prepared = preflight(config, tmp_path / "run")
    train(config, prepared, tmp_path / "run")
    n_windows = (len(prepared.corpus.val) - 1) // 64
    assert n_windows > 4
    n_tokens = 64 * min(n_windows, (eval_batches or n_windows) * 2)
    ids = prepared.corpus.val[1 : n_tokens + 1].tolist()
    n_bytes = len(prepared.tokenizer.decode_bytes([i for i in ids if i != prepared.tokenizer.end_of_text_id]))
    val = rows(tmp_path / "run")[-1]
    expected = float(val["val/loss"]) / math.log(2) * n_tokens / n_bytes
    assert float(val["val/bits_per_byte"]) == pytest.approx(expected, rel=1e-6)


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
