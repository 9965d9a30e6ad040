"""What a run needs, computed beforehand: against the model itself and against a process's own peak."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import AdamWConfig, ModelConfig, MuonConfig, SGDConfig, TrainConfig
from gpt_pretrain.model import GPTModel
from gpt_pretrain.training.estimate import estimate_memory, exchanged_bytes, n_params
from gpt_pretrain.training.forecast import forecast
from gpt_pretrain.training.preflight import preflight
from tests.conftest import QUICK, ROOT

SHAPE = {"vocab_size": 97, "context_length": 16, "emb_dim": 12, "n_heads": 3, "n_layers": 2}


@pytest.mark.parametrize("changed", [{}, {"qkv_bias": False}, {"tie_weights": False}, {"n_layers": 5}])
def test_the_parameters_are_the_models(changed):
    shape = ModelConfig(**(SHAPE | changed))
    model = GPTModel(shape)
    assert n_params(shape)[0] == model.n_params()
    matrices = [p.numel() for name, p in model.named_parameters() if "blocks" in name and p.ndim == 2]
    assert n_params(shape)[1] == sum(matrices)


def test_states_and_shards_are_counted_by_the_bytes():
    shape = ModelConfig(**SHAPE)
    parameters, matrices = n_params(shape)

    def of(optimizer, **more):
        return estimate_memory(shape, optimizer, batch_size=1, precision="32-true", **more)

    assert of(AdamWConfig()).weights == of(AdamWConfig()).gradients == 4 * parameters
    assert of(AdamWConfig()).optimizer == 8 * parameters
    assert of(SGDConfig()).optimizer == 4 * parameters
    assert of(MuonConfig()).optimizer == 4 * parameters + 4 * (parameters - matrices)
    assert of(AdamWConfig(), shards=4).optimizer == 2 * parameters
    assert of(AdamWConfig(), shards=4).gradients == parameters
    assert of(AdamWConfig(), shards=4, micro_steps=2).gradients == 4 * parameters  # whole, until the last one
    assert of(AdamWConfig(), micro_steps=2).gradients == of(AdamWConfig()).gradients
    assert of(AdamWConfig(), recompute=True).activations < of(AdamWConfig()).activations


def test_what_devices_exchange():
    assert exchanged_bytes(1000, 1, sharded=False, precision="32-true") == 0
    assert exchanged_bytes(1000, 4, sharded=False, precision="32-true") == 2 * 3 / 4 * 4000
    assert exchanged_bytes(1000, 2, sharded=True, precision="bf16-mixed", micro_steps=3) == 6000 + 2000


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads its peak from /proc")
@pytest.mark.parametrize(
    "shape",  # width, layers, vocabulary, batch, recompute
    [
        "256 4 8000 8 0",
        *(
            pytest.param(shape, marks=pytest.mark.slow)
            for shape in ("768 6 500 1 0", "256 8 500 16 0", "256 8 500 16 1")
        ),
    ],
)
def test_the_estimate_is_near_the_peak_of_a_process(shape):
    script = Path(__file__).with_name("measure_memory.py")
    # Each large tensor a mapping of its own: else glibc's gaps between them are measured too.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, str(script), *shape.split()], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    estimated, measured = map(float, done.stdout.split())
    assert 0.9 < estimated / measured < 1.25


PLAN = [*QUICK, "plan=true", "trainer.max_steps=100"]


def test_a_plan_is_printed_without_a_gpu_and_leaves_nothing(typed, tmp_path, capsys):
    code, said = typed("train", *PLAN, "plan.device=h100", "plan.devices=64", "data.batch_size=2")
    assert (code, said) == (0, "")
    assert not list(tmp_path.iterdir())


def test_logits_are_counted_by_the_way_that_the_loss_takes(tmp_path, capsys):
    def logits(way: str) -> float:
        words = [*PLAN, "model.vocab_size=50257", "data.batch_size=16", f"trainer.loss={way}"]
        config = compose("train", TrainConfig, words)
        forecast(config, preflight(config, tmp_path))
        return float(re.search(r"logits ([0-9.]+)", capsys.readouterr().out)[1])

    assert logits("torch") == pytest.approx(3 * logits("in_place"), rel=0.1)


def test_what_cannot_fit_is_refused_with_what_would(typed, tmp_path):
    large = ["model=gpt2_xl", "trainer=auto", "trainer.precision=bf16-mixed", "data.batch_size=64"]
    code, said = typed("train", *PLAN, *large, "model.vocab_size=257", "plan.device=l4")
    assert (code, "do not fit into the 22.4 GiB of l4: trainer=fsdp" in said) == (2, True), said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [["plan.device=h1000"], ["plan.devices=0"], ["plan.devics=2"]])
def test_a_wrong_plan_is_refused(typed, wrong):
    code, said = typed("train", *PLAN, *wrong)
    assert (code, said.count("\n") <= 3) == (2, True), said
