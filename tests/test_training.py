"""Whole training runs, in process: what is written, and that nothing beside the training changes it."""

import csv
import json

import pytest
import torch
from safetensors.torch import load_file

from gpt_pretrain.config import TrainConfig
from gpt_pretrain.entry import compose
from gpt_pretrain.errors import DivergedError, InputError
from gpt_pretrain.preparation import prepare
from gpt_pretrain.training import train

QUICK = [
    *("model=tiny", "tokenizer=bytes", "trainer=cpu", "data.batch_size=2", "model.drop_rate=0.1"),
    *("trainer.eval_batches=2", "decoding.max_new_tokens=3", "trainer.log_every=1"),
]


def run(folder, *overrides):
    config = compose("train", TrainConfig, [*QUICK, *overrides])
    folder.mkdir(exist_ok=True)
    return train(config, prepare(config, folder), folder)


def rows(folder):
    with (folder / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def losses(folder):
    return {row["step"]: row["train/loss"] for row in rows(folder) if row["train/loss"]}


def same_state(one, other) -> bool:
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = load_file(one / name), load_file(other / name)
        if ours.keys() != theirs.keys() or not all(torch.equal(ours[k], theirs[k]) for k in ours):
            return False
    return True


def test_a_run_leaves_everything_that_it_promises(tmp_path):
    summary = run(tmp_path, "trainer.max_steps=6", "trainer.eval_every=3")
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert set(summary) == {
        *("steps", "tokens_seen", "train_loss", "val_loss", "best_val_loss", "val_perplexity"),
        *("tokens_per_sec", "seconds", "n_params", "best_checkpoint", "exit_reason"),
    }
    assert all(value is not None for value in summary.values())
    assert (summary["steps"], summary["tokens_seen"]) == (6, 6 * 2 * 64)
    assert [row["step"] for row in rows(tmp_path)] == [str(step) for step in range(7)]
    assert [row["step"] for row in rows(tmp_path) if row["val/loss"]] == ["0", "3", "6"]
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "--- step 6\nEvery effort moves you" in (tmp_path / "samples.txt").read_text()
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_the_logged_validation_loss_is_the_token_weighted_mean_of_the_text(tmp_path):
    run(tmp_path, "trainer.max_steps=1", "trainer.eval_batches=null", "data.batch_size=7")
    config = compose("train", TrainConfig, [*QUICK, "data.batch_size=7"])
    prepared = prepare(config, tmp_path / "other")
    from gpt_pretrain.checkpoint import load_model
    from gpt_pretrain.runs import find_checkpoint

    model, _ = load_model(find_checkpoint(tmp_path))
    tokens = torch.from_numpy(prepared.corpus.val[:].astype("int64"))
    n_windows = (len(tokens) - 1) // 64
    with torch.inference_mode():
        inputs = tokens[: n_windows * 64].view(-1, 64)
        targets = tokens[1 : n_windows * 64 + 1].view(-1, 64)
        log_probabilities = model(inputs).double().log_softmax(-1)
        expected = -log_probabilities.gather(-1, targets[..., None]).mean().item()
    assert float(rows(tmp_path)[-1]["val/loss"]) == pytest.approx(expected, abs=1e-6)


def test_evaluating_sampling_and_saving_more_often_changes_no_digit(tmp_path):
    run(tmp_path / "rare", "trainer.max_steps=6", "trainer.eval_every=6")
    often = [
        "trainer.eval_every=1",
        "trainer.sample_every=1",
        "trainer.checkpoint_every=1",
        "trainer.keep_last=9",
    ]
    run(tmp_path / "often", "trainer.max_steps=6", *often, "trainer.eval_train=true", "data.num_workers=1")
    assert losses(tmp_path / "rare") == losses(tmp_path / "often")
    last = "checkpoints/step-00000006"
    assert same_state(tmp_path / "rare" / last, tmp_path / "often" / last)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "adam"])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path, optimizer):
    whole = [f"optimizer={optimizer}", "schedule=cosine", "trainer.global_batch_tokens=256"]
    whole += [
        "trainer.eval_every=2",
        "trainer.checkpoint_every=3",
        "trainer.keep_last=9",
        "trainer.keep_best=false",
    ]
    run(tmp_path / "whole", *whole, "trainer.max_steps=7")
    first = tmp_path / "first"
    run(first, *whole, "trainer.max_steps=7")
    for step in (6, 7):  # as if the run had been killed after step 3
        for file in (first / "checkpoints" / f"step-0000000{step}").iterdir():
            file.unlink()
        (first / "checkpoints" / f"step-0000000{step}").rmdir()
    run(first, *whole, "trainer.max_steps=7", f"resume='{first}'")
    last = "checkpoints/step-00000007"
    assert same_state(tmp_path / "whole" / last, first / last)
    assert losses(tmp_path / "whole") == losses(first)
    assert [row["val/loss"] for row in rows(tmp_path / "whole")] == [row["val/loss"] for row in rows(first)]


def test_accumulated_micro_batches_train_like_one_large_batch(tmp_path):
    common = ["trainer.max_steps=4", "model.drop_rate=0"]
    run(tmp_path / "large", *common, "data.batch_size=4")
    run(tmp_path / "small", *common, "data.batch_size=2", "trainer.global_batch_tokens=256")
    for step, loss in losses(tmp_path / "large").items():
        assert float(losses(tmp_path / "small")[step]) == pytest.approx(float(loss), abs=1e-5)


def test_only_the_newest_and_the_best_checkpoints_stay(tmp_path):
    summary = run(
        tmp_path,
        "trainer.max_steps=6",
        "trainer.eval_every=1",
        "trainer.checkpoint_every=1",
        "trainer.keep_last=2",
    )
    kept = {folder.name for folder in (tmp_path / "checkpoints").iterdir()}
    best = summary["best_checkpoint"].rsplit("/", 1)[-1]
    assert kept == {"step-00000005", "step-00000006", best}


def test_the_best_validation_loss_is_the_lowest_of_all(tmp_path):
    summary = run(tmp_path, "trainer.max_steps=5", "trainer.eval_every=1")
    assert summary["best_val_loss"] == min(
        float(row["val/loss"]) for row in rows(tmp_path) if row["val/loss"]
    )


def test_a_loss_that_is_no_number_ends_the_run_with_its_own_error(tmp_path):
    with pytest.raises(DivergedError, match=r"lower optimizer\.lr"):
        run(tmp_path, "trainer.max_steps=40", "optimizer=sgd", "optimizer.lr=1e30", "trainer.grad_clip=null")
    assert json.loads((tmp_path / "summary.json").read_text())["exit_reason"] == "diverged"


def test_weights_of_a_checkpoint_start_a_new_run(tmp_path):
    run(tmp_path / "first", "trainer.max_steps=3")
    first = rows(tmp_path / "first")[-1]["val/loss"]
    weights = ["weights=checkpoint", f"weights.path='{tmp_path / 'first'}'", "model=from_weights"]
    run(tmp_path / "second", "trainer.max_steps=3", *weights)
    assert rows(tmp_path / "second")[0]["val/loss"] == first


def test_a_resumed_run_takes_a_new_learning_rate(tmp_path):
    run(tmp_path, "schedule=constant", "optimizer.lr=1e-3", "trainer.max_steps=2")
    resumed = ["optimizer.lr=5e-4", "trainer.max_steps=4", f"resume='{tmp_path}'"]
    run(tmp_path, "schedule=constant", *resumed)
    rates = {row["step"]: float(row["lr"]) for row in rows(tmp_path) if row["lr"]}
    assert rates == {"1": 1e-3, "2": 1e-3, "3": 5e-4, "4": 5e-4}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("optimizer=sgd", "optimizer is sgd, but it was adamw"),
        ("model.n_layers=3", "model.n_layers is 3, but it was 2"),
        ("data.batch_size=4", "tokens at once"),
        ("trainer.global_batch_tokens=256", "micro-steps a step"),
    ],
)
def test_a_run_is_not_resumed_as_another_one(tmp_path, changed, said):
    run(tmp_path, "trainer.max_steps=2")
    with pytest.raises(InputError, match=said):
        run(tmp_path, "trainer.max_steps=4", f"resume='{tmp_path}'", changed)


def test_weights_are_not_trained_on_with_ids_that_mean_other_text(tmp_path):
    run(tmp_path / "first", "trainer.max_steps=2")
    weights = ["weights=checkpoint", f"weights.path='{tmp_path / 'first'}'", "model=from_weights"]
    with pytest.raises(InputError, match="was trained with the tokenizer bytes, where id 0 means"):
        run(tmp_path / "second", "trainer.max_steps=2", *weights, "tokenizer=characters")


def test_what_a_killed_save_left_is_cleared_away(tmp_path):
    run(tmp_path, "trainer.max_steps=2")
    partial = tmp_path / "checkpoints" / ".step-00000003.partial"
    partial.mkdir()
    run(tmp_path, "trainer.max_steps=4", f"resume='{tmp_path}'")
    assert not partial.exists()


def test_weights_that_are_no_numbers_are_never_saved(tmp_path):
    extreme = ["optimizer=sgd", "optimizer.lr=1e30", "trainer.grad_clip=null", "trainer.log_every=50"]
    extreme += ["trainer.max_steps=6", "trainer.checkpoint_every=1", "trainer.eval_every=6"]
    with pytest.raises(DivergedError, match="at step"):
        run(tmp_path, *extreme)
    for weights in tmp_path.glob("checkpoints/*/model.safetensors"):
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(weights).values())
