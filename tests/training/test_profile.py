"""Looking closer: debug=profile, debug=overfit, debug=one_step."""

import json

import pytest

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.errors import InputError
from tests.training.test_train import SETTINGS, rows


@pytest.mark.parametrize("accumulated", ["null", "256"])
def test_a_profile_is_a_trace_of_five_steps_and_a_table(typed, tmp_path, accumulated):
    settings = [*SETTINGS, "debug=profile", f"trainer.global_batch_tokens={accumulated}"]
    assert typed("train", *settings, "hydra.run.dir=run")[0] == 0
    (file,) = (tmp_path / "run").glob("*.pt.trace.json")
    events = json.loads(file.read_text())["traceEvents"]
    steps = [event for event in events if event.get("name", "").startswith("Optimizer.step#AdamW")]
    assert len(steps) == 5
    said = (tmp_path / "run" / "train.log").read_text()
    table = said.partition("costliest operations of 5 steps:")[2]
    lines = [
        line for line in table.splitlines() if "aten::" in line or "Optimizer" in line or "autograd" in line
    ]
    shares = [float(line.split("%")[0].split()[-1]) for line in lines]
    assert len(lines) >= 5
    assert shares == sorted(shares, reverse=True)
    assert len(rows(tmp_path / "run")) > 1


def test_one_step_does_everything_once(typed, tmp_path):
    assert typed("train", *SETTINGS, "debug=one_step", "hydra.run.dir=run")[0] == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["steps"], summary["exit_reason"]) == (1, "finished")
    assert summary["best_checkpoint"]
    assert "--- step 1" in (tmp_path / "run" / "samples.txt").read_text()


def test_overfitting_learns_one_batch_by_heart(typed, tmp_path):
    settings = [
        "model=tiny",
        "tokenizer=bytes",
        "trainer=cpu",
        "optimizer.lr=1e-2",
        "decoding.max_new_tokens=3",
    ]
    assert typed("train", *settings, "debug=overfit", "hydra.run.dir=run")[0] == 0
    losses = [float(row["train/loss"]) for row in rows(tmp_path / "run") if row["train/loss"]]
    assert losses[-1] < 0.5 < 4 < losses[0]


@pytest.mark.parametrize("said", ["true", "false"])
def test_the_switch_for_tracebacks_is_still_one(said):
    assert compose("train", TrainConfig, [f"debug={said}"]).debug is (said == "true")
    with pytest.raises(InputError, match="did you mean profile"):
        compose("train", TrainConfig, ["debug=profil"])
