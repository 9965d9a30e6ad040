"""Callbacks of one's own in a run: they end it, log, save and keep what they like, and it stays sound."""

import time

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.foreign import parse_json, read_json
from gpt_pretrain.runs.pretrained import load_model
from gpt_pretrain.training import checkpoint_io
from gpt_pretrain.training.preflight import preflight
from gpt_pretrain.training.train import train
from tests.training.test_train import SETTINGS, losses, rows, same_state

pytestmark = pytest.mark.trains
ACCUMULATING = ["trainer.global_batch_tokens=256", "trainer.eval_every=10"]  # 2 micro-steps a step


def run(folder, *overrides, callbacks=()):
    config = compose("train", TrainConfig, [*SETTINGS, "logger=csv", *overrides])
    folder.mkdir(exist_ok=True)
    return train(config, preflight(config, folder), folder, callbacks=callbacks)


class At(L.Callback):
    """Does something after the micro-step of a number."""

    def __init__(self, number, action):
        self.number, self.action = number, action

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx + 1 == self.number:
            self.action(trainer)


class Early(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        trainer.should_stop = batch_idx == 4


def ending(trainer):
    trainer.should_stop = True


@pytest.mark.parametrize("own", [At(5, ending), Early()], ids=["after a micro-step", "before one"])
def test_a_run_that_is_ended_amid_an_accumulation_ends_with_the_step_and_goes_on_as_if_never_ended(
    tmp_path, own
):
    settings = [*ACCUMULATING, "trainer.max_steps=5"]
    run(tmp_path / "whole", *settings)
    assert run(tmp_path / "run", *settings, callbacks=[own])["steps"] == 3
    run(tmp_path / "run", *settings, f"resume='{tmp_path / 'run'}'")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    last = "checkpoints/step-00000005"
    assert same_state(tmp_path / "run" / last, tmp_path / "whole" / last)


@pytest.mark.parametrize("log_every", ["1", "100"])
def test_a_run_that_is_ended_after_a_step_has_its_row_its_sample_and_its_losses(tmp_path, log_every):
    settings = ["trainer.max_steps=9", "trainer.eval_every=9", f"trainer.log_every={log_every}"]
    summary = run(tmp_path, *settings, callbacks=[At(4, ending)])
    last = rows(tmp_path)[-1]
    assert [row["step"] for row in rows(tmp_path)].count("4") == 1
    assert (last["step"], float(last["val/loss"])) == ("4", summary["val_loss"])
    assert float(last["train/loss"]) == summary["train_loss"] != float(rows(tmp_path)[1]["train/loss"])
    assert "--- step 4\n" in (tmp_path / "samples.txt").read_text()


class LogsBeside(L.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.log("own/lightnings", float(batch_idx), on_step=True)
        trainer.loggers[0].log_metrics({"own/loggers": float(trainer.global_step)}, trainer.global_step)


def test_what_a_callback_logs_beside_takes_no_row_and_no_value(tmp_path):
    settings = ["trainer.max_steps=52", "trainer.eval_every=26", "trainer.log_every=26"]
    run(tmp_path / "alone", *settings)
    run(tmp_path / "beside", *settings, callbacks=[LogsBeside()])
    beside = {row["step"]: row for row in rows(tmp_path / "beside")}
    assert list(beside) == [str(step) for step in range(53)]
    for row in rows(tmp_path / "alone"):
        for key in ("train/loss", "val/loss", "epoch", "tokens_seen", "lr"):
            assert beside[row["step"]][key] == row[key]
    assert [float(row["own/loggers"]) for row in list(beside.values())[1:]] == list(range(1, 53))
    assert beside["49"]["own/lightnings"] == "49"  # Lightning's own rhythm, and count


def test_the_time_that_a_callback_takes_is_no_part_of_the_optimizers(tmp_path):
    run(
        tmp_path, "trainer.max_steps=3", callbacks=[At(n, lambda trainer: time.sleep(0.5)) for n in (1, 2, 3)]
    )
    assert [float(row["ms/optimizer"]) < 500 for row in rows(tmp_path)[1:]] == [True] * 3


def test_a_callback_that_averages_weights_is_saved_with_them_and_goes_on_exactly(tmp_path, caplog):
    settings = ["trainer.eval_every=2", "trainer.max_steps=6", "trainer.checkpoint_every=2"]
    run(tmp_path / "whole", *settings, callbacks=[EMAWeightAveraging(decay=0.5)])
    run(tmp_path / "run", *settings, callbacks=[EMAWeightAveraging(decay=0.5), At(4, ending)])
    again = [*settings, f"resume='{tmp_path / 'run'}'"]
    run(tmp_path / "run", *again, callbacks=[EMAWeightAveraging(decay=0.5)])
    last = "checkpoints/step-00000006"
    assert same_state(tmp_path / "run" / last, tmp_path / "whole" / last)
    assert "is not saved" not in caplog.text


class Keeps(L.Callback):
    def __init__(self, kept):
        self.kept, self.found = kept, {}

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint.update(self.kept)

    def on_load_checkpoint(self, trainer, pl_module, checkpoint):
        self.found = {key: checkpoint[key] for key in self.kept if key in checkpoint}


@pytest.mark.parametrize(
    ("largest", "left_out"), [(checkpoint_io.LARGEST, {"odd"}), (50_000, {"odd", "tensors", "texts"})]
)
def test_what_a_callback_adds_to_a_checkpoint_comes_back_but_for_what_is_none_or_too_large(
    tmp_path, caplog, monkeypatch, largest, left_out
):
    monkeypatch.setattr(checkpoint_io, "LARGEST", largest)
    small = {"own": [torch.tensor([1.5, torch.inf]), -torch.inf, {"deep": [torch.nan]}, None], "none": None}
    large = {"tensors": [torch.rand(10_000), torch.rand(10_000)], "texts": "x" * 60_000}
    settings, mine = (
        ["trainer.eval_every=2", "trainer.max_steps=2"],
        Keeps({**small, **large, "odd": object()}),
    )
    run(tmp_path, *settings, callbacks=[mine])
    run(tmp_path, *settings, "trainer.max_steps=3", f"resume='{tmp_path}'", callbacks=[mine])
    assert repr(mine.found["own"]) == repr(small["own"])
    assert set(mine.kept) - set(mine.found) == left_out
    assert all(f"the state of {name} is not saved" in caplog.text for name in left_out)


@pytest.mark.parametrize("beside", ["true", "false"])
def test_a_checkpoint_that_a_callback_asks_for_is_there_at_once_and_is_a_model(tmp_path, beside):
    mine, whole = tmp_path / "mine", []

    def save(trainer):
        trainer.save_checkpoint(mine)
        whole.append((mine / "manifest.json").is_file())

    settings = [*ACCUMULATING, "trainer.max_steps=3", "trainer.checkpoint_every=1", "trainer.keep_last=9"]
    run(tmp_path / "run", *settings, f"trainer.save_in_background={beside}", callbacks=[At(4, save)])
    assert whole == [True]
    assert same_state(mine, tmp_path / "run" / "checkpoints" / "step-00000002")
    assert load_model(mine)[1].name == "bytes"


@pytest.mark.parametrize(
    ("number", "given", "message"),
    [
        (3, {}, "amid step 2, whose gradients would be lost: save after the last of its 2 micro-steps"),
        (4, {"weights_only": True}, "leaves out what training needs"),
    ],
)
def test_a_checkpoint_that_no_run_could_go_on_from_is_refused(tmp_path, number, given, message):
    mine = At(number, lambda trainer: trainer.save_checkpoint(tmp_path / "mine", **given))
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", *ACCUMULATING, "trainer.max_steps=3", callbacks=[mine])
    assert not (tmp_path / "mine").exists()


class Freezes(L.Callback):
    def on_fit_start(self, trainer, pl_module):
        pl_module.model.pos_emb.requires_grad_(False)


def test_a_run_in_which_a_callback_freezes_weights_goes_on(tmp_path):
    settings = ["trainer.eval_every=2", "trainer.max_steps=2"]
    run(tmp_path, *settings, callbacks=[Freezes()])
    again = [*settings, "trainer.max_steps=3", f"resume='{tmp_path}'"]
    assert run(tmp_path, *again, callbacks=[Freezes()])["steps"] == 3


class Misfits(L.Callback):
    def state_dict(self):
        return {"own": torch.zeros(2)}

    def load_state_dict(self, state_dict):
        torch.zeros(3).copy_(state_dict["own"])


def test_a_state_that_a_callback_cannot_take_back_is_refused_in_a_line(tmp_path):
    settings = ["trainer.eval_every=2", "trainer.max_steps=2"]
    summary = run(tmp_path, *settings, callbacks=[Misfits()])
    with pytest.raises(ArtifactError, match="does not fit"):
        run(tmp_path, *settings, "trainer.max_steps=3", f"resume='{tmp_path}'", callbacks=[Misfits()])
    assert read_json(tmp_path / "summary.json") == summary


def strict(file):
    def refused(word):
        raise ValueError(f"{file} says {word}, which is no JSON")

    return parse_json(file.read_text(), parse_constant=refused)


def test_every_figure_of_a_run_beyond_all_numbers_is_still_json_and_comes_back(tmp_path):
    settings = ["optimizer=sgd", "optimizer.lr=3000", "trainer.grad_clip=null", "trainer.eval_every=2"]
    summary = run(tmp_path, *settings, "trainer.max_steps=2")
    assert summary["val_loss"] > 710  # whose exp no float holds
    assert summary["val_perplexity"] is None
    for file in [*tmp_path.glob("*.json"), *tmp_path.glob("checkpoints/*/*.json")]:
        strict(file)
    state = strict(tmp_path / "checkpoints" / "step-00000002" / "trainer_state.json")
    newest = checkpoint_io.from_plain(state["callbacks"]["Metrics"]["newest"])
    assert newest["val/perplexity"] == torch.inf
    assert run(tmp_path, *settings, "trainer.max_steps=2", f"resume='{tmp_path}'") == summary


def test_a_state_of_an_earlier_version_that_is_no_json_is_read(tmp_path):
    (tmp_path / "state.json").write_text('{"best": {"tensor": Infinity, "dtype": "float32"}, "a": -Infinity}')
    state = checkpoint_io.from_plain(read_json(tmp_path / "state.json"))
    assert state == {"best": torch.tensor(torch.inf), "a": -torch.inf}
