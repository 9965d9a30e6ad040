"""From Python: settings, preparation, training; and the module under a trainer and callbacks of one's own."""

import csv

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import CSVLogger

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.runs.pretrained import load_model
from gpt_pretrain.training.preflight import preflight
from gpt_pretrain.training.train import build_data, build_module, train
from tests.conftest import QUICK

pytestmark = pytest.mark.trains
SETTINGS = [*QUICK, "trainer.max_steps=6", "trainer.eval_every=3", "trainer.log_every=1", "logger=csv"]


class Odd(L.Callback):
    """Keeps what no checkpoint can hold."""

    def state_dict(self):
        return {"itself": object()}


def test_a_callback_of_one_s_own_ends_a_run_which_saves_its_last_step_and_goes_on_with_its_state(
    tmp_path, caplog
):
    def stopping():
        return EarlyStopping("val/loss", patience=1, min_delta=100.0)  # nothing is so much better

    often = ["trainer.max_steps=20", "trainer.eval_every=2", "trainer.checkpoint_every=100"]
    config = compose("train", TrainConfig, [*QUICK, *often, "logger=csv"])
    first, run = stopping(), tmp_path / "run"
    summary = train(config, preflight(config, run), run, callbacks=[first, Odd()])
    assert (first.stopped_epoch, first.wait_count, summary["steps"]) == (0, 1, 4)
    assert (run / "checkpoints" / "step-00000004" / "manifest.json").is_file()
    assert "the state of Odd is not saved" in caplog.text
    config = compose("train", TrainConfig, [*QUICK, *often, "logger=csv", f"resume='{run}'"])
    again = stopping()
    train(config, preflight(config, run), run, callbacks=[again])
    assert torch.equal(again.best_score, first.best_score)


class Losses(L.Callback):
    def __init__(self):
        self.of_step = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.of_step.append(float(outputs["loss"]))


def test_a_trainer_of_one_s_own_trains_to_the_same_digits(tmp_path):
    config = compose("train", TrainConfig, SETTINGS)
    run = tmp_path / "not yet there" / "run"
    prepared = preflight(config, run)
    summary = train(config, prepared, run)
    with (run / "metrics.csv").open() as stream:
        expected = [float(row["train/loss"]) for row in csv.DictReader(stream) if row["train/loss"]]
    model, tokenizer = load_model(run)
    assert (summary["steps"], model.n_params(), tokenizer.name) == (6, summary["n_params"], "bytes")

    module = build_module(config, prepared)
    data = build_data(config, prepared, module.draws)
    losses = Losses()
    trainer = L.Trainer(
        max_steps=prepared.plan.steps,
        val_check_interval=prepared.plan.eval_every,
        precision=prepared.machine.precision,
        accelerator="cpu",
        callbacks=[losses, EarlyStopping("val/loss", patience=5)],
        logger=CSVLogger(tmp_path / "own"),
        log_every_n_steps=1,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, data)
    assert losses.of_step == pytest.approx(expected, rel=1e-6)
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(summary["val_loss"], rel=1e-6)
    (logged,) = (tmp_path / "own").rglob("metrics.csv")
    header = logged.read_text().splitlines()[0].split(",")
    assert {"train/loss", "val/loss"} <= set(header)
    assert module.train_losses == []  # nobody would empty it
