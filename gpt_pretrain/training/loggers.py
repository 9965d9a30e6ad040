"""The loggers of a run, none of which can end it: whatever asks them, Lightning's own calls included."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from gpt_pretrain.config.trainer import LoggerConfig
from gpt_pretrain.terminal.watching import watching
from gpt_pretrain.training.metrics_csv import MetricsCSV
from gpt_pretrain.training.tensorboard import EventFiles


def build_loggers(config: LoggerConfig, run: Path, due: int, pictures: bool) -> list[Logger]:
    """`due`: the first step that is still to be logged; what was written from it on is written anew."""
    loggers: list[Logger] = []
    if config.csv:
        loggers.append(CSV(run / "metrics.csv", due))
    if config.tensorboard:
        loggers.append(TensorBoard(run, due, pictures))
    for kind, wanted, make in (("wandb", config.wandb, _wandb), ("mlflow", config.mlflow, _mlflow)):
        if wanted:
            with watching(kind):
                logger = make(config, run)
                _ = logger.experiment  # now, not at the first row: who is not logged in hears of it
                loggers.append(logger)
    return loggers


class Watched(Logger):
    """Comes before a logger among a class's bases: what fails in it is told once, as `kind`."""

    kind: str


def _guarded(name: str) -> Callable[..., None]:
    def call(self: Watched, *args: Any, **kwargs: Any) -> None:
        with watching(self.kind):
            getattr(super(Watched, self), name)(*args, **kwargs)

    return call


# What Lightning asks of every logger, and this program of some.
for _name in (
    *("log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint"),
    *("begin", "end", "restore", "log_text", "log_picture"),
):
    setattr(Watched, _name, _guarded(_name))


RUN_TAG = "run_folder"  # by which MLflow finds a run again
LONGEST_PARAMETER = 250  # characters that Lightning leaves of one


class CSV(Watched, MetricsCSV):
    kind = "metrics.csv"


class TensorBoard(Watched, EventFiles):
    kind = "tensorboard"

    def writer(self, split: str) -> Any:
        with watching(self.kind):
            return super().writer(split)
        return _Nowhere()


class _Nowhere:
    """In the place of a writer that could not be built: takes everything, keeps nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def _wandb(config: LoggerConfig, run: Path) -> Any:
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    class Ended(WandbLogger):
        def finalize(self, status: str) -> None:
            """All is written now, and not as Python ends: the next run of this process is one of its own."""
            super().finalize(status)
            self.experiment.finish(exit_code=int(status != "success"))

    class WeightsAndBiases(Watched, Ended):
        kind = "wandb"

    # Lightning's own offline= writes into the environment, where the next run would find it.
    mode: dict[str, Any] = {"mode": "offline"} if config.offline else {}
    return WeightsAndBiases(
        name=_name_of(run),
        version=_id_of(run),  # a resumed run goes on with it
        resume="allow",
        save_dir=str(run),
        project=config.project,
        settings=wandb.Settings(console="off", silent=True, **mode),
    )


def _mlflow(config: LoggerConfig, run: Path) -> Any:
    from lightning.pytorch.loggers import MLFlowLogger

    class GoesOn(MLFlowLogger):
        def log_hyperparams(self, params: Any) -> None:
            """A setting stands for good there: what a run goes on with instead is a tag."""
            client, run_id = self.experiment, self.run_id
            known = client.get_run(run_id).data.params
            super().log_hyperparams({key: value for key, value in params.items() if key not in known})
            for key, value in params.items():
                if key in known and str(value)[:LONGEST_PARAMETER] != known[key]:
                    client.set_tag(run_id, f"now/{key}", str(value)[:LONGEST_PARAMETER])

    class MLflow(Watched, GoesOn):
        kind = "mlflow"

    if config.mlflow_uri is None:  # a folder serves one run well, but MLflow wants to hear that it is meant
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = config.mlflow_uri or f"file:{run / 'mlruns'}"
    return MLflow(
        experiment_name=config.project,
        run_name=_name_of(run),
        run_id=_mlflow_run(uri, config.project, run),
        tags={RUN_TAG: _id_of(run)},
        tracking_uri=uri,
    )


def _mlflow_run(uri: str, project: str, run: Path) -> str | None:
    """What MLflow calls this run where it has begun before: it chooses the names itself."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(project)
    if experiment is None:
        return None
    begun = client.search_runs([experiment.experiment_id], f"tags.{RUN_TAG} = '{_id_of(run)}'", max_results=1)
    return begun[0].info.run_id if begun else None


def _id_of(run: Path) -> str:
    """The same whenever the run goes on in its folder."""
    return hashlib.sha256(str(run.absolute()).encode()).hexdigest()[:16]


def _name_of(run: Path) -> str:
    """A run's folder as it is told from others: its date and time."""
    return "/".join(run.absolute().parts[-2:])
