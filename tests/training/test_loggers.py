"""Loggers beside TensorBoard: what a run writes without a network, what is said where one is missing."""

import pytest

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.errors import InputError
from tests import conftest
from tests.training.test_train import rows, run

QUICK = ["trainer.max_steps=2", "trainer.eval_every=1"]


@pytest.mark.slow
def test_weights_and_biases_offline_keeps_every_row_in_the_runs_folder(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    summary = run(tmp_path / "run", *QUICK, "logger=wandb", "logger.offline=true")
    (record,) = (tmp_path / "run").rglob("*.wandb")
    written = record.read_bytes()
    assert b"val/loss" in written
    assert repr(summary["val_loss"]).encode() in written
    assert b"optimizer.lr" in written
    assert not list((tmp_path / "run").glob("events*"))


@pytest.mark.slow
def test_who_is_not_logged_in_to_weights_and_biases_hears_of_it_and_trains(tmp_path, monkeypatch, caplog):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert run(tmp_path / "run", *QUICK, "logger=wandb")["steps"] == 2
    assert "wandb failed: UsageError: No API key" in caplog.text
    assert caplog.text.count("wandb failed") == 1


@pytest.mark.slow
def test_mlflow_keeps_every_row_in_the_runs_folder_and_goes_on_with_a_resumed_run(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    run(tmp_path / "run", *QUICK, "logger=mlflow", "logger.project=tries")
    again = ["trainer.max_steps=4", "trainer.eval_every=1", f"resume='{tmp_path / 'run'}'"]
    run(tmp_path / "run", *again, "logger=mlflow", "logger.project=tries")
    assert "mlflow failed" not in caplog.text
    client = mlflow.MlflowClient(f"file:{tmp_path / 'run' / 'mlruns'}")
    (experiment,) = [found for found in client.search_experiments() if found.name == "tries"]
    (found,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(found.info.run_id, "val/loss")
    assert [(point.step, point.value) for point in history] == [
        (int(row["step"]), float(row["val/loss"])) for row in rows(tmp_path / "run") if row["val/loss"]
    ]
    assert found.data.params["optimizer.lr"] == "0.001"
    assert (found.data.params["trainer.max_steps"], found.data.tags["now/trainer.max_steps"]) == ("2", "4")


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["tensorboard", "csv", "wandb", "mlflow"])
def test_a_run_goes_on_by_its_command_whatever_its_logger_keeps_in_its_folder(typed, monkeypatch, logger):
    """wandb has links there."""
    if logger in ("wandb", "mlflow"):
        pytest.importorskip(logger, reason=f"{logger} is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    words = [f"logger={logger}", "logger.offline=true", *QUICK, "hydra.run.dir=run"]
    code, error = typed("train", *conftest.QUICK, *words)
    assert code == 0, error
    code, error = typed("train", "resume=run", "trainer.max_steps=3")
    assert code == 0, error


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_asked_for_in_a_line(name, monkeypatch):
    monkeypatch.setattr("gpt_pretrain.config.trainer.find_spec", lambda _: None)
    with pytest.raises(InputError, match=rf"logger\.{name}=true needs .*pip install '\.\[{name}\]'"):
        compose("train", TrainConfig, [f"logger={name}"])
