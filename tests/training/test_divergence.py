"""A step that is no number, or leaps, is found before the optimizer moves."""

import json
import math
import time

import pytest
import torch
from safetensors.torch import load_file

from gpt_pretrain.errors import DivergedError
from gpt_pretrain.training.divergence import FEWEST, Divergence, RolledBackError
from gpt_pretrain.training.module import GPTModule
from tests.training.test_train import rows, run

pytestmark = pytest.mark.trains


@pytest.fixture
def poisoned(monkeypatch):
    """The batch that step 4 would train on gives a loss that is no number."""

    def poison(step: int = 4):
        inner, found = GPTModule.training_step, []

        def training_step(self, batch, batch_idx):
            loss = inner(self, batch, batch_idx)
            if batch_idx == step - 1 and (not found or torch.equal(found[0], batch["inputs"])):
                found.append(batch["inputs"].clone())
                loss = loss * math.nan
                self.train_losses[-1] = self.step_losses[-1] = loss.detach()
            return loss

        monkeypatch.setattr(GPTModule, "training_step", training_step)

    return poison


SIX = ["trainer.max_steps=6", "trainer.checkpoint_every=1", "trainer.eval_every=6", "trainer.keep_last=9"]


def test_a_run_stops_at_the_step_itself_and_names_it_and_its_samples(tmp_path, poisoned):
    poisoned()
    with pytest.raises(
        DivergedError, match=r"no finite number at step 4 \(the batch at token \d+, \d+ of the"
    ):
        run(tmp_path, *SIX)
    kept = {folder.name for folder in (tmp_path / "checkpoints").iterdir()}
    assert kept == {f"step-0000000{step}" for step in (1, 2, 3)}


def test_a_skipped_step_moves_no_weight_and_no_moment(tmp_path, poisoned):
    poisoned()
    assert run(tmp_path, *SIX, "trainer.on_divergence=skip")["exit_reason"] == "finished"
    for name in ("model.safetensors", "optimizer.safetensors"):
        before, after, later = (
            load_file(tmp_path / "checkpoints" / f"step-0000000{step}" / name) for step in (3, 4, 5)
        )
        assert all(torch.equal(before[key], after[key]) for key in before), name
        assert not all(torch.equal(after[key], later[key]) for key in after), name
    assert [row["step"] for row in rows(tmp_path)] == [str(step) for step in range(7)]
    state = json.loads((tmp_path / "checkpoints/step-00000006/trainer_state.json").read_text())
    assert state["divergence"]["skipped"] == [4]


@pytest.mark.parametrize("step", [1, 4])
def test_a_skipped_step_has_neither_a_loss_nor_a_gradient_norm(tmp_path, poisoned, step):
    poisoned(step)
    run(tmp_path, "trainer.max_steps=6", "trainer.on_divergence=skip")
    for key in ("train/loss", "grad_norm"):
        assert [row["step"] for row in rows(tmp_path) if not row[key]] == ["0", str(step)], key


def test_a_run_rolls_back_past_the_batches_since_its_checkpoint_and_a_resumed_one_too(tmp_path, poisoned):
    poisoned()
    often = [
        "trainer.max_steps=6",
        "trainer.checkpoint_every=2",
        "trainer.eval_every=6",
        "trainer.keep_last=9",
    ]
    assert run(tmp_path, *often, "trainer.on_divergence=rollback")["exit_reason"] == "finished"
    assert [row["step"] for row in rows(tmp_path)] == [str(step) for step in range(7)]
    state = json.loads((tmp_path / "checkpoints/step-00000006/trainer_state.json").read_text())
    assert state["divergence"]["rolled_back"] == [[2, 4]]
    whole = load_file(tmp_path / "checkpoints/step-00000006/model.safetensors")
    for file in (tmp_path / "checkpoints/step-00000006").iterdir():
        file.unlink()
    (tmp_path / "checkpoints/step-00000006").rmdir()
    run(tmp_path, *often, "trainer.on_divergence=rollback", f"resume='{tmp_path}'")
    again = load_file(tmp_path / "checkpoints/step-00000006/model.safetensors")
    assert all(torch.equal(whole[key], again[key]) for key in whole)


@pytest.mark.parametrize("checkpoint_every", ["2", "null"])
def test_what_a_run_took_counts_the_steps_that_it_went_back_from(
    tmp_path, poisoned, monkeypatch, caplog, checkpoint_every
):
    poisoned()
    inner, n_steps = GPTModule.training_step, 0

    def slow(self, batch, batch_idx):
        nonlocal n_steps
        n_steps += 1
        time.sleep(0.1)
        return inner(self, batch, batch_idx)

    monkeypatch.setattr(GPTModule, "training_step", slow)
    settings = [f"trainer.checkpoint_every={checkpoint_every}", "trainer.on_divergence=rollback"]
    with caplog.at_level("INFO", "gpt_pretrain"):
        summary = run(tmp_path, "trainer.max_steps=6", "trainer.eval_every=6", *settings)
    assert n_steps == 6 + (2 if checkpoint_every == "2" else 4)
    assert 0.1 * n_steps < summary["seconds"] <= summary["session_seconds"]
    seconds = [float(row["seconds"]) for row in rows(tmp_path)]
    assert seconds == sorted(seconds)
    assert caplog.text.count("steps an epoch") == 1
    assert "resumed" not in caplog.text


def test_the_budget_is_an_end(tmp_path, poisoned, monkeypatch):
    monkeypatch.setattr(Divergence, "finding", lambda self, loss_is_finite, norm: "it is odd")
    with pytest.raises(DivergedError, match=r"trainer\.divergence_budget=2 is used up"):
        run(tmp_path, *SIX, "trainer.on_divergence=skip", "trainer.divergence_budget=2")


def test_a_leap_is_measured_against_the_median_of_what_went_before():
    watched = Divergence("stop", 1, 10.0)
    for _ in range(FEWEST):
        assert watched.finding(True, 1.0) is None
    assert watched.finding(True, 9.0) is None
    assert "more than 10 times its median" in watched.finding(True, 11.0)
    assert watched.finding(True, 1.0) is None  # what leapt is not remembered
    assert "nan" in watched.finding(True, math.nan)
    assert watched.finding(True, None) is None  # float16's scaling looks after it
    assert Divergence("stop", 1, None).finding(True, 1e9) is None


def test_a_roll_back_counts_the_steps_whose_batches_are_left_out():
    watched = Divergence("rollback", 5, None)
    with pytest.raises(RolledBackError):
        watched.answer(7, "odd", DivergedError("odd"), "")
    watched.roll_back(4, 7)
    watched.roll_back(4, 6)
    assert watched.n_passed_over == 5
    restored = Divergence("rollback", 5, None)
    restored.load_state_dict(watched.state_dict())
    assert restored.n_passed_over == 5
