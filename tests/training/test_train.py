"""Whole training runs, in process: what is written, and that nothing beside the training changes it."""

import csv
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.errors import ArtifactError, DivergedError, InfrastructureError, InputError, StoppedError
from gpt_pretrain.loss import summed_token_loss
from gpt_pretrain.runs.folders import find_checkpoint
from gpt_pretrain.training import module
from gpt_pretrain.training.callbacks.checkpoints import Checkpoints
from gpt_pretrain.training.callbacks.samples import Samples
from gpt_pretrain.training.checkpoint_io import from_plain
from gpt_pretrain.training.machine import multiplies_bfloat16
from gpt_pretrain.training.module import GPTModule
from gpt_pretrain.training.preflight import preflight
from gpt_pretrain.training.train import train
from tests.conftest import QUICK

pytestmark = pytest.mark.trains

SETTINGS = [
    *(*QUICK, "optimizer=adamw", "data.batch_size=2", "model.drop_rate=0.1"),
    *("trainer.eval_batches=2", "trainer.log_every=1"),
]


def run(folder, *overrides):
    config = compose("train", TrainConfig, [*SETTINGS, *overrides])
    folder.mkdir(exist_ok=True)
    return train(config, preflight(config, folder), folder)


def rows(folder):
    with (folder / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def unclocked(row):
    """A row without what differs from one process, or one minute, to the next."""
    measured = ("seconds", "tokens_per_sec", "memory_mb")
    return {key: value for key, value in row.items() if key not in measured and not key.startswith("ms/")}


def losses(folder):
    return {row["step"]: row["train/loss"] for row in rows(folder) if row["train/loss"]}


def same_state(one, other) -> bool:
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = load_file(one / name), load_file(other / name)
        if ours.keys() != theirs.keys() or not all(torch.equal(ours[k], theirs[k]) for k in ours):
            return False
    return True


def test_a_run_leaves_everything_that_it_promises(tmp_path):
    summary = run(tmp_path, "trainer.max_steps=6", "trainer.eval_every=3", "logger.pictures=true")
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert set(summary) == {
        *("steps", "tokens_seen", "train_loss", "val_loss", "best_val_loss", "val_perplexity"),
        *("tokens_per_sec", "seconds", "session_tokens_per_sec", "session_seconds"),
        *("n_params", "best_checkpoint", "exit_reason"),
    }
    assert all(value is not None for value in summary.values())
    assert (summary["steps"], summary["tokens_seen"]) == (6, 6 * 2 * 64)
    assert [row["step"] for row in rows(tmp_path)] == [str(step) for step in range(7)]
    assert [row["step"] for row in rows(tmp_path) if row["val/loss"]] == ["0", "3", "6"]
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "--- step 6\nThe statement" in (tmp_path / "samples.txt").read_text()
    assert list(tmp_path.glob("events*"))


def test_the_logged_validation_loss_is_the_token_weighted_mean_of_the_text(tmp_path):
    settings = ["trainer.precision=32-true", "data.batch_size=7"]  # as the model below computes
    run(tmp_path, "trainer.max_steps=1", "trainer.eval_batches=null", *settings)
    config = compose("train", TrainConfig, [*SETTINGS, *settings])
    prepared = preflight(config, tmp_path / "other")

    from gpt_pretrain.runs.pretrained import load_model

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


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_finished_run_that_goes_on_equals_one_that_was_as_long_from_the_start(tmp_path, optimizer):
    """Its dropout, too: Lightning counts a finished run's batches from nought again."""
    words = [f"optimizer={optimizer}", "schedule=constant", "trainer.global_batch_tokens=256"]
    run(tmp_path / "whole", *words, "trainer.max_steps=7")
    parts = tmp_path / "parts"
    run(parts, *words, "trainer.max_steps=3")
    for steps in (4, 7):
        run(parts, *words, f"trainer.max_steps={steps}", f"resume='{parts}'")
    last = "checkpoints/step-00000007"
    assert losses(tmp_path / "whole") == losses(parts)
    assert same_state(tmp_path / "whole" / last, parts / last)


@pytest.mark.parametrize("killed_after", [2, 8])
def test_what_happens_between_two_parts_of_a_run_changes_no_digit_of_it(tmp_path, killed_after):
    """Two optimizers in one, accumulation, dropout, clipping and a decay that begins late, all at once."""
    whole = ["optimizer=muon", "schedule=wsd", "trainer.global_batch_tokens=384", "trainer.grad_clip=0.5"]
    whole += ["trainer.max_steps=9", "trainer.checkpoint_every=2", "trainer.keep_last=9"]
    run(tmp_path / "whole", *whole, "trainer.eval_every=3")
    run_to(killed_after, tmp_path / "whole", tmp_path / "first")
    resume = f"resume='{tmp_path / 'first'}'"
    run(tmp_path / "first", *whole, "trainer.eval_every=2", "trainer.sample_every=1", resume)
    last = "checkpoints/step-00000009"
    assert same_state(tmp_path / "whole" / last, tmp_path / "first" / last)
    assert losses(tmp_path / "whole") == losses(tmp_path / "first")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four steps with its checkpoints at 2 and 4, to be copied."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    run(folder, "trainer.max_steps=4", "trainer.checkpoint_every=2", "trainer.eval_every=2")
    return folder


def run_to(step, source, folder):
    """A copy of a run as if it had been killed after `step`."""
    shutil.copytree(source, folder)
    for checkpoint in (folder / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    return folder


def test_a_resumed_run_takes_the_optimizers_settings_of_now(trained, tmp_path):
    folder = run_to(2, trained, tmp_path / "run")
    still = ["optimizer.lr=1e-30", "optimizer.weight_decay=0.5", "optimizer.beta1=0.5", "trainer.max_steps=4"]
    run(folder, *still, f"resume='{folder}'")
    before, after = (
        load_file(folder / "checkpoints" / f"step-0000000{n}" / "model.safetensors") for n in (2, 4)
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    state = json.loads((folder / "checkpoints" / "step-00000004" / "trainer_state.json").read_text())
    assert [group["weight_decay"] for group in state["param_groups"]] == [0.5, 0.0]
    assert {group["betas"][0] for group in from_plain(state["param_groups"])} == {0.5}


def test_the_logged_learning_rate_is_the_one_that_trained(tmp_path, trained):
    """Also in the first step of a run that goes on for longer than it was planned."""
    folder = run_to(4, trained, tmp_path / "run")
    run(folder, "trainer.max_steps=5", "trainer.checkpoint_every=1", f"resume='{folder}'")
    state = json.loads((folder / "checkpoints" / "step-00000005" / "trainer_state.json").read_text())
    assert {repr(group["lr"]) for group in state["param_groups"]} == {rows(folder)[-1]["lr"]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer=sgd", "optimizer is sgd, but it was adamw so far"),
        ("model.n_layers=1", r"model\.n_layers is 1, but it was 2 so far"),
        ("model.context_length=32", r"model\.context_length is 32, but it was 64 so far"),
        ("model.tie_weights=false", r"model\.tie_weights is false"),
        ("tokenizer=gpt2", "was trained with the tokenizer bytes"),
        ("data.batch_size=1", "tokens at once .* is 64, but it was 128 so far"),
        ("trainer.global_batch_tokens=256", "micro-steps a step .* is 2, but it was 1 so far"),
    ],
)
def test_settings_that_cannot_change_within_a_run_are_refused(trained, override, message):
    with pytest.raises(InputError, match=message) as refused:
        run(trained, "trainer.max_steps=6", override, f"resume='{trained}'")
    assert len(str(refused.value).splitlines()) <= 3


def test_a_run_goes_on_without_the_weights_that_it_began_with(trained, tmp_path):
    weights = ["weights=checkpoint", f"weights.path='{run_to(4, trained, tmp_path / 'old')}'"]
    quick = ["model=from_weights", "trainer.max_steps=2"]
    run(tmp_path / "new", *weights, *quick)
    shutil.rmtree(tmp_path / "old")
    resumed = run(tmp_path / "new", *weights, *quick, "trainer.max_steps=3", f"resume='{tmp_path / 'new'}'")
    assert resumed["steps"] == 3


@pytest.mark.parametrize("left", [None, "", '{"steps": 2}', "[]"])
def test_a_run_killed_before_its_summary_gets_it_when_resumed(trained, tmp_path, left):
    folder = run_to(4, trained, tmp_path / "run")
    complete = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").unlink() if left is None else (folder / "summary.json").write_text(left)
    partial = folder / "checkpoints" / ".step-00000004.1.partial"
    partial.mkdir()
    summary = run(folder, "trainer.max_steps=4", "trainer.eval_every=2", f"resume='{folder}'")
    assert json.loads((folder / "summary.json").read_text()) == summary
    for key in ("steps", "val_loss", "best_val_loss", "exit_reason"):
        assert summary[key] == complete[key], key


def test_what_a_killed_process_had_half_saved_is_cleared_away(trained, tmp_path):
    folder = run_to(4, trained, tmp_path / "run")
    partial = folder / "checkpoints" / ".step-00000005.1.partial"
    partial.mkdir()
    run(folder, "trainer.max_steps=5", f"resume='{folder}'")
    assert not partial.exists()


def test_a_signal_after_the_last_step_puts_its_evaluation_off(tmp_path, monkeypatch):
    def sample(_, trainer, module):
        if trainer.global_step:  # the first one comes before training
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Samples, "_sample", sample)
    with pytest.raises(StoppedError, match="at step 2, saved"):
        run(tmp_path, "trainer.max_steps=2", "trainer.sample_every=9")
    monkeypatch.undo()
    summary = run(tmp_path, "trainer.max_steps=2", "trainer.sample_every=9", f"resume='{tmp_path}'")
    assert (summary["exit_reason"], summary["steps"]) == ("finished", 2)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2"]
    assert rows(tmp_path)[-1]["val/loss"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_first_step_ends_the_evaluation_and_leaves_no_folder(typed, monkeypatch, number):
    validation_step, seen = GPTModule.validation_step, []

    def interrupted(self, batch, batch_idx, dataloader_idx=0):
        seen.append(batch_idx)
        signal.raise_signal(number)
        validation_step(self, batch, batch_idx, dataloader_idx)

    monkeypatch.setattr(GPTModule, "validation_step", interrupted)
    before = signal.getsignal(number)
    code, said = typed("train", *SETTINGS, "trainer.eval_batches=null", "hydra.run.dir=runs/first")
    assert (code, said) == (128 + number, f"error: interrupted by {signal.Signals(number).name}\n")
    assert seen == [0]
    assert not Path("runs").exists()
    assert signal.getsignal(number) is before


def interrupted_at(monkeypatch, step):
    """A signal in the training step `step`, once."""
    training_step, sent = GPTModule.training_step, []

    def interrupted(self, batch, batch_idx):
        if batch_idx == step - 1 and not sent:
            sent.append(signal.raise_signal(signal.SIGTERM))
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(GPTModule, "training_step", interrupted)


@pytest.mark.parametrize("step", [1, 3, 4, 5, 6])
def test_what_was_due_at_the_step_of_an_interruption_is_made_up_for(tmp_path, monkeypatch, step):
    """At 3 a sample, at 4 an evaluation, at 6 both, and the end."""
    events = ["trainer.max_steps=6", "trainer.eval_every=4", "trainer.sample_every=3", "trainer.log_every=2"]
    run(tmp_path / "whole", *events)
    interrupted_at(monkeypatch, step)
    folder = tmp_path / "run"
    with pytest.raises(StoppedError, match=f"stopped by SIGTERM at step {step}, saved"):
        run(folder, *events)
    summary = run(folder, *events, f"resume='{folder}'")
    assert (summary["exit_reason"], summary["steps"]) == ("finished", 6)
    for ours, theirs in zip(rows(folder), rows(tmp_path / "whole"), strict=True):
        assert unclocked(ours) == unclocked(theirs)
    assert (folder / "samples.txt").read_text() == (tmp_path / "whole" / "samples.txt").read_text()
    last = "checkpoints/step-00000006"
    assert same_state(folder / last, tmp_path / "whole" / last)


def test_what_was_due_is_made_up_for_by_a_run_that_is_to_go_no_further_too(tmp_path, monkeypatch):
    interrupted_at(monkeypatch, 4)
    events = ["trainer.eval_every=2", "trainer.sample_every=4"]
    with pytest.raises(StoppedError, match="at step 4, saved"):
        run(tmp_path, *events, "trainer.max_steps=6")
    summary = run(tmp_path, *events, "trainer.max_steps=3", f"resume='{tmp_path}'")
    assert (summary["exit_reason"], summary["steps"]) == ("finished", 4)
    last = rows(tmp_path)[-1]
    assert (last["step"], float(last["val/loss"])) == ("4", summary["val_loss"])
    assert "step 4\n" in (tmp_path / "samples.txt").read_text()


@pytest.mark.parametrize("eval_batches", ["1", "null"])
def test_a_run_that_is_measured_on_another_text_forgets_its_best(tmp_path, monkeypatch, eval_batches):
    """Those of the first steps are made small, as on an easier text."""
    factor = 0.5

    def easier(logits, targets):
        total, n_tokens = summed_token_loss(logits, targets)
        return total * factor, n_tokens

    events = ["trainer.eval_every=1", "logger=csv"]
    monkeypatch.setattr(module, "summed_token_loss", easier)
    first = run(tmp_path, *events, "trainer.max_steps=2", "trainer.eval_batches=1")
    factor = 1.0
    settings = ["trainer.max_steps=4", f"trainer.eval_batches={eval_batches}"]
    last = run(tmp_path, *events, *settings, f"resume='{tmp_path}'")
    goes_on = eval_batches == "1"
    assert (last["best_val_loss"] == first["best_val_loss"]) == goes_on
    assert (last["best_checkpoint"] == first["best_checkpoint"]) == goes_on


def test_a_signal_ends_an_evaluation_which_is_done_again(tmp_path, monkeypatch):
    events = ["trainer.max_steps=4", "trainer.eval_every=2", "trainer.eval_batches=3"]
    run(tmp_path / "whole", *events)
    validation_step, seen = GPTModule.validation_step, []

    def interrupted(self, batch, batch_idx, dataloader_idx=0):
        seen.append((self.trainer.global_step, batch_idx))
        if seen[-1] == (2, 1) and seen.count((2, 1)) == 1:
            signal.raise_signal(signal.SIGUSR1)
        validation_step(self, batch, batch_idx, dataloader_idx)

    monkeypatch.setattr(GPTModule, "validation_step", interrupted)
    folder = tmp_path / "run"
    with pytest.raises(StoppedError, match="stopped by SIGUSR1 at step 2"):
        run(folder, *events)
    assert seen[-1] == (2, 1)
    run(folder, *events, f"resume='{folder}'")
    for ours, theirs in zip(rows(folder), rows(tmp_path / "whole"), strict=True):
        assert unclocked(ours) == unclocked(theirs)
    assert (folder / "samples.txt").read_text() == (tmp_path / "whole" / "samples.txt").read_text()


def test_a_run_that_begins_anew_before_its_first_checkpoint_repeats_nothing(tmp_path):
    # The server's own: it drops what is written anew of texts, too.
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    events = ["trainer.max_steps=4", "trainer.eval_every=2", "trainer.sample_every=1"]
    run(tmp_path / "run", *events)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    for name in (".saved", "summary.json"):
        (tmp_path / "run" / name).unlink()
    run(tmp_path / "run", *events)
    read = {split: EventAccumulator(str(tmp_path / "run" / split)).Reload() for split in ("", "val")}
    assert [event.step for event in read["val"].Tensors("1 loss/over steps")] == [0, 2, 4]
    assert [event.step for event in read[""].Tensors("1 sample/text_summary")] == [0, 1, 2, 3, 4]
    assert (tmp_path / "run" / "samples.txt").read_text().count("--- step 1\n") == 1


def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(trained, tmp_path):
    folder = run_to(0, trained, tmp_path / "run")
    with pytest.raises(ArtifactError, match="has saved checkpoints, and none is left"):
        run(folder, "trainer.max_steps=6", f"resume='{folder}'")
    with pytest.raises(InputError, match="holds a run already"):
        run(folder, "trainer.max_steps=6")


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path, monkeypatch, caplog):
    from gpt_pretrain.runs import checkpoint

    synced, training_step = os.fsync, GPTModule.training_step
    full, fits = {2, 3, 4, 5}, iter(range(2))  # steps; and what the disk still holds, the first time
    steps = []

    def counted(self, batch, batch_idx):
        steps.append(batch_idx + 1)
        return training_step(self, batch, batch_idx)

    def fsync(descriptor):
        if steps and steps[-1] in full and next(fits, None) is None:
            raise OSError(28, "No space left on device")
        synced(descriptor)

    monkeypatch.setattr(GPTModule, "training_step", counted)
    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    often = ["trainer.max_steps=8", "trainer.checkpoint_every=1", "trainer.save_retries=20"]
    assert run(tmp_path, *often)["exit_reason"] == "finished"
    assert "No space left on device; training goes on" in caplog.text
    assert (tmp_path / "checkpoints" / "step-00000008").is_dir()
    assert not list((tmp_path / "checkpoints").glob(".*"))
    full |= set(range(9, 13))
    with pytest.raises(InfrastructureError, match=r"failed: .*No space left on device; the newest is step-0"):
        run(tmp_path, *often, "trainer.max_steps=12", "trainer.save_retries=1", f"resume='{tmp_path}'")


def test_what_is_saved_beside_training_is_the_state_at_its_step(tmp_path, monkeypatch):
    often = [
        "trainer.max_steps=6",
        "trainer.checkpoint_every=1",
        "trainer.keep_last=9",
        "trainer.eval_every=6",
    ]
    run(tmp_path / "plain", *often)
    from gpt_pretrain.training import checkpoint_io

    written, trained, write = [], [], checkpoint_io.write_checkpoint
    stepped = GPTModule.training_step

    def late(folder, **content):  # the optimizer has moved on meanwhile
        while len(trained) <= int(folder.name[5:]) < 6:
            time.sleep(0.005)
        written.append(len(trained))
        write(folder, **content)

    monkeypatch.setattr(checkpoint_io, "write_checkpoint", late)
    monkeypatch.setattr(GPTModule, "training_step", lambda *given: trained.append(1) or stepped(*given))
    run(tmp_path / "beside", *often, "trainer.save_in_background=true")
    assert written[:-1] == [2, 3, 4, 5, 6]  # each while the next step was trained
    for step in range(1, 7):
        ours, theirs = (tmp_path / name / "checkpoints" / f"step-{step:08d}" for name in ("beside", "plain"))
        assert same_state(ours, theirs), step


@pytest.mark.parametrize("eval_every", [1, 6])
def test_a_save_beside_training_that_fails_is_told_and_the_last_one_is_an_error(
    tmp_path, monkeypatch, caplog, eval_every
):
    from gpt_pretrain.training import checkpoint_io

    write = checkpoint_io.write_checkpoint

    def fails(folder, **content):
        if folder.name.endswith(("3", "6")):
            raise OSError(28, "No space left on device")
        write(folder, **content)

    monkeypatch.setattr(checkpoint_io, "write_checkpoint", fails)
    settings = ["trainer.max_steps=6", "trainer.checkpoint_every=1", "trainer.save_in_background=true"]
    settings += [f"trainer.eval_every={eval_every}"]
    with pytest.raises(
        InfrastructureError, match=r"checkpoint of step 6 failed: .*the newest is step-00000005"
    ):
        run(tmp_path, *settings)
    assert "the checkpoint of step 3 failed (1 of at most 3 times on end)" in caplog.text
    assert len(list((tmp_path / "checkpoints").iterdir())) in (2, 3)


@pytest.mark.parametrize("beside", ["true", "false"])
def test_what_could_not_be_saved_is_not_the_best_and_the_best_stays(tmp_path, monkeypatch, beside):
    from gpt_pretrain.training import checkpoint_io

    write, ranked = checkpoint_io.write_checkpoint, Checkpoints._ranked
    measured = {2: 3.0, 4: 1.0, 6: 3.5, 8: 3.2, 10: 3.3}

    def fails(folder, **content):
        if folder.name.endswith("4"):
            raise OSError(28, "No space left on device")
        write(folder, **content)

    monkeypatch.setattr(checkpoint_io, "write_checkpoint", fails)
    monkeypatch.setattr(Checkpoints, "_ranked", lambda self, step, loss: ranked(self, step, measured[step]))
    often = [
        f"trainer.{word}" for word in ("max_steps=10", "eval_every=2", "checkpoint_every=2", "keep_last=2")
    ]
    summary = run(tmp_path, *often, f"trainer.save_in_background={beside}")
    assert summary["best_checkpoint"].endswith("step-00000002")
    kept = {int(path.name[5:]) for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {2, 8, 10}
    assert find_checkpoint(tmp_path).name == "step-00000002"


def test_the_best_few_stay(tmp_path):
    often = ["trainer.max_steps=8", "trainer.eval_every=1", "trainer.checkpoint_every=1", "trainer.best_of=3"]
    run(tmp_path, *often, "optimizer.lr=0.3", "optimizer=sgd")
    losses_at = {int(row["step"]): float(row["val/loss"]) for row in rows(tmp_path) if row["step"] != "0"}
    best = sorted(losses_at, key=losses_at.__getitem__)[:3]
    kept = {int(folder.name[5:]) for folder in (tmp_path / "checkpoints").iterdir()}
    assert kept == {*best, 7, 8}


def test_accumulated_micro_batches_train_like_one_large_batch(tmp_path):
    # A sum over a batch of bfloat16 products is rounded to eight bits, and so shows where it was cut.
    common = ["trainer.precision=32-true", "trainer.max_steps=4", "model.drop_rate=0"]
    run(tmp_path / "large", *common, "data.batch_size=4")
    run(tmp_path / "small", *common, "data.batch_size=2", "trainer.global_batch_tokens=256")
    for step, loss in losses(tmp_path / "large").items():
        assert float(losses(tmp_path / "small")[step]) == pytest.approx(float(loss), abs=1e-5)


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "gpu", "expected"),
    [
        (True, False, (7, 5), {"cpu": True, "gpu": False}),
        (False, True, (7, 5), {"cpu": True, "gpu": False}),
        (False, False, (8, 0), {"cpu": False, "gpu": True}),
        (False, False, (9, 0), {"cpu": False, "gpu": True}),
        (False, False, (7, 5), {"cpu": False, "gpu": False}),
    ],
)
def test_what_multiplies_bfloat16_is_asked_of_the_hardware_that_trains(
    monkeypatch, avx512_bf16, amx, gpu, expected
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu)
    assert {accelerator: multiplies_bfloat16(accelerator) for accelerator in ("cpu", "gpu")} == expected


def test_auto_trains_in_what_the_hardware_multiplies_itself(tmp_path, monkeypatch):
    def trained_in(precision):
        run(tmp_path / precision, "trainer.max_steps=2", f"trainer.precision={precision}")
        return losses(tmp_path / precision)

    has = {}
    monkeypatch.setattr(
        "gpt_pretrain.training.machine.multiplies_bfloat16", lambda accelerator: has[accelerator]
    )
    single, half = trained_in("32-true"), trained_in("bf16-mixed")
    assert single != half
    for has["cpu"], expected in ((False, single), (True, half)):
        shutil.rmtree(tmp_path / "auto", ignore_errors=True)
        assert trained_in("auto") == expected


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


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer=sgd", "optimizer.lr=1e30", "trainer.eval_every=1"],  # noticed by a sample
        ["optimizer.lr=1e308", "trainer.checkpoint_every=1", "trainer.sample_every=99"],  # by saving
        ["optimizer=sgd", "optimizer.lr=1e30", "trainer.eval_every=1", "trainer.sample_every=99"],
    ],
)
def test_a_run_that_diverges_between_two_reports_saves_nothing_of_it(tmp_path, settings):
    with pytest.raises(DivergedError, match=r"lower optimizer\.lr=1e\+30"):
        run(tmp_path, "trainer.max_steps=40", "trainer.grad_clip=null", *settings)
    assert json.loads((tmp_path / "summary.json").read_text())["exit_reason"] == "diverged"
    assert not (tmp_path / "checkpoints").exists()


def test_weights_of_a_checkpoint_start_a_new_run(tmp_path):
    run(tmp_path / "first", "trainer.max_steps=3")
    first = rows(tmp_path / "first")[-1]["val/loss"]
    weights = ["weights=checkpoint", f"weights.path='{tmp_path / 'first'}'", "model=from_weights"]
    run(tmp_path / "second", "trainer.max_steps=3", *weights)
    assert rows(tmp_path / "second")[0]["val/loss"] == first


def test_weights_are_not_trained_on_with_a_tokenizer_that_means_other_text(trained, tmp_path):
    weights = ["weights=checkpoint", f"weights.path='{trained}'", "model=from_weights", "trainer.max_steps=1"]
    (tmp_path / "few.txt").write_text("abcdefghij " * 500)  # 11 characters fit into 257 ids
    other = ["tokenizer=characters", "data=text_files", f"data.path='{tmp_path / 'few.txt'}'"]
    with pytest.raises(InputError, match=r"with the tokenizer bytes, where id 0 means b'\\x00', not b' '"):
        run(tmp_path / "new", *weights, *other)
    more = ["tokenizer.special_tokens=[pad]", "model.vocab_size=258"]  # one id more harms no other
    assert run(tmp_path / "new", *weights, *more)["steps"] == 1


def test_openais_weights_want_openais_tokenizer(tmp_path):
    from tests.weights import foreign

    foreign.huggingface(foreign.reference((24, 4, 3)), tmp_path)
    weights = ["weights=gpt2", f"weights.path='{tmp_path}'", "model=from_weights", "tokenizer=characters"]
    with pytest.raises(InputError, match="was trained with the tokenizer gpt2"):  # whatever the number of ids
        run(tmp_path / "new", *weights)


def test_what_a_run_says_of_itself_does_not_come_from_a_logger(tmp_path, caplog):
    caplog.set_level("INFO")
    run(tmp_path, "trainer.max_steps=3", "logger=none", "trainer.eval_every=3")
    (line,) = (record.message for record in caplog.records if "(best" in record.message)
    first, last = line.removeprefix("validation loss ").split(" (")[0].split(" -> ")
    assert float(first) > float(last)


def test_a_resumed_run_counts_its_earlier_parts_and_this_one(trained, tmp_path):
    folder = run_to(4, trained, tmp_path / "run")
    state = json.loads((folder / "checkpoints" / "step-00000004" / "trainer_state.json").read_text())
    spent = state["callbacks"]["Metrics"]["spent"]
    assert (spent["tokens"], spent["training_seconds"] <= spent["seconds"]) == (4 * 128, True)
    summary = run(folder, "trainer.max_steps=6", f"resume='{folder}'")
    assert summary["seconds"] == pytest.approx(spent["seconds"] + summary["session_seconds"], abs=0.02)
    steps = 6 * 128 / summary["tokens_per_sec"]
    here = 2 * 128 / summary["session_tokens_per_sec"]
    assert steps == pytest.approx(spent["training_seconds"] + here)
