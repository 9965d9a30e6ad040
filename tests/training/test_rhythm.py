"""Rhythms count optimizer steps, whatever is accumulated in each."""

import re

import pytest

from tests.training.test_train import rows, run

pytestmark = pytest.mark.trains


def test_rhythms_count_optimizer_steps_whatever_the_accumulation(tmp_path):
    rhythms = ["log_every=5", "eval_every=4", "sample_every=3", "checkpoint_every=2", "keep_last=9"]
    settings = ["trainer.global_batch_tokens=384", "trainer.max_steps=7", "trainer.keep_best=false"]
    run(tmp_path, *settings, *(f"trainer.{rhythm}" for rhythm in rhythms))
    assert [row["step"] for row in rows(tmp_path) if row["val/loss"]] == ["0", "4", "7"]
    # At the first step, at 5 and wherever something else is due: see Metrics.
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2", "3", "4", "5", "6", "7"]
    assert re.findall(r"^--- step (\d+)", (tmp_path / "samples.txt").read_text(), re.M) == [
        "0",
        "3",
        "6",
        "7",
    ]
    saved = sorted(folder.name[-1] for folder in (tmp_path / "checkpoints").iterdir())
    assert saved == ["2", "4", "6", "7"]


@pytest.mark.parametrize("first", ["1", "null"])
def test_samples_are_drawn_where_the_run_evaluates_if_no_other_beat_is_set(tmp_path, first):
    run(tmp_path, "trainer.max_steps=8", "trainer.eval_every=3", f"trainer.eval_first={first}")
    evaluated = [row["step"] for row in rows(tmp_path) if row["val/loss"]]
    assert evaluated == (["0", "1", "4", "7", "8"] if first == "1" else ["0", "3", "6", "8"])
    assert re.findall(r"^--- step (\d+)", (tmp_path / "samples.txt").read_text(), re.M) == evaluated
