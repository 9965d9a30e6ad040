"""The loggers of a run, none of which can end it: whatever asks them, Lightning's own calls included."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from gpt_pretrain.config.trainer import LoggerConfig
from gpt_pretrain.terminal.text import printable
from gpt_pretrain.terminal.watching import watching
from gpt_pretrain.training.metrics_csv import MetricsCSV


def build_loggers(config: LoggerConfig, run: Path, first_step: int) -> list[Logger]:
    """A resumed run passes the step of its checkpoint: what came after it is written anew."""
    loggers: list[Logger] = []
    if config.csv:
        loggers.append(CSV(run / "metrics.csv", first_step))
    if config.tensorboard:
        loggers.append(TensorBoard(run, first_step))
    return loggers


class Watched(Logger):
    """Comes before a logger among a class's bases: what fails in it is told once, as `kind`."""

    kind: str

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        with watching(self.kind):
            super().log_metrics(*args, **kwargs)  # type: ignore[safe-super]

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        with watching(self.kind):
            super().log_hyperparams(*args, **kwargs)  # type: ignore[safe-super]

    def log_graph(self, *args: Any, **kwargs: Any) -> None:
        with watching(self.kind):
            super().log_graph(*args, **kwargs)

    def save(self) -> None:
        with watching(self.kind):
            super().save()

    def finalize(self, status: str) -> None:
        with watching(self.kind):
            super().finalize(status)

    def after_save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with watching(self.kind):
            super().after_save_checkpoint(*args, **kwargs)


class CSV(Watched, MetricsCSV):
    kind = "metrics.csv"


class TensorBoard(Watched, TensorBoardLogger):
    kind = "tensorboard"

    def __init__(self, run: Path, first_step: int) -> None:
        purge = first_step + 1 if first_step else 0  # also what a run left that begins anew in its folder
        super().__init__(run, name="", default_hp_metric=False, purge_step=purge)

    @property
    def log_dir(self) -> str:
        """In the run's folder as it is named: Lightning's own takes a `$HOME` in it for a variable."""
        return str(Path(self.root_dir, "tensorboard"))

    @property
    def experiment(self) -> Any:
        """Lightning asks for it before the first step, so that a folder that cannot be written shows then."""
        with watching(self.kind):
            return super().experiment
        return _Nowhere()

    def log_text(self, name: str, text: str, step: int) -> None:
        with watching(self.kind):
            self.experiment.add_text(name, printable(text), step)

    def log_by_tokens(self, metrics: dict[str, float]) -> None:
        """Losses over the tokens seen, beside those over steps."""
        with watching(self.kind):
            for key in ("train/loss", "val/loss", "train/perplexity", "val/perplexity"):
                if key in metrics:
                    name = f"by_tokens/{key.replace('/', '_')}"
                    self.experiment.add_scalar(name, metrics[key], int(metrics["tokens_seen"]))


class _Nowhere:
    """In the place of a writer that could not be built: takes everything, keeps nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None
