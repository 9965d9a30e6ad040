"""python -m gpt_pretrain.plot runs=outputs: pictures of runs, alone and side by side."""

from pathlib import Path
from typing import TYPE_CHECKING

from gpt_pretrain.cli.program import command
from gpt_pretrain.config import PlotConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.runs.folders import find_runs, is_run
from gpt_pretrain.terminal.text import show

if TYPE_CHECKING:
    from gpt_pretrain.training.plots import Rows


@command(
    "plot",
    PlotConfig,
    examples={
        "python -m gpt_pretrain.plot runs=multirun out=pictures": "a sweep's runs, the best one marked"
    },
)
def plot(config: PlotConfig, run: Path) -> None:
    """Draw runs: losses and learning rate of each, and their validation losses side by side, best marked."""
    found = find(config.paths())
    from gpt_pretrain.training.plots import comparison_figure, loss_figure, rates_figure, save

    runs = measured(found)
    out = _made(config.out)
    figures = {
        "learning_rate": rates_figure(runs),
        **({"comparison": comparison_figure(runs)} if len(runs) > 1 else {}),
        **{
            f"loss-{number}" if len(runs) > 1 else "loss": loss_figure(
                rows, tokens_per_step=_tokens_per_step(rows), title=name
            )
            for number, (name, rows) in enumerate(runs.items(), 1)
        },
    }
    for name, figure in figures.items():
        for kind in ("png", "svg") if config.format == "both" else (config.format,):
            save(figure, out / f"{name}.{kind}")
            show(out / f"{name}.{kind}")


def find(paths: list[str]) -> list[Path]:
    """The runs that paths and globs name, or that lie below them, oldest first. Raises InputError."""
    runs: dict[Path, None] = {}
    for text in paths:
        below = [run for one in _named(text) for run in ([one] if is_run(one) else find_runs(one)[::-1])]
        if not below:
            raise InputError(f"runs={text}: no run is there: give a run's folder, or one that holds runs")
        runs |= dict.fromkeys(below)
    return list(runs)


def _named(text: str) -> list[Path]:
    """The path that `text` is, or those that it is a pattern of. Raises InputError."""
    try:
        path = Path(text).expanduser()
        return [path] if path.exists() else sorted(Path(path.anchor or ".").glob(str(path).lstrip("/")))
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, ~nobody, a name with ** inside
        raise InputError(f"runs={text[:300]} cannot be looked up ({error}): give folders") from error


def _made(out: str) -> Path:
    """The folder for the pictures. Raises InputError where there can be none."""
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise InputError(f"out={out} cannot be made ({error.strerror}): give another folder") from error
    return Path(out)


def measured(runs: list[Path]) -> "dict[str, Rows]":
    """The rows of each run's metrics.csv, by the run's name. Raises InputError where there are none."""
    from gpt_pretrain.training.metrics_csv import read_rows

    rows: dict[str, Rows] = {str(run): read for run in runs if (read := read_rows(run / "metrics.csv"))}
    if not rows:
        raise InputError(f"runs={runs[0]}: it has measured nothing yet: its metrics.csv has no row")
    return rows


def _tokens_per_step(rows: "Rows") -> float:
    shares = [row["tokens_seen"] / row["step"] for row in rows if row["step"] and row.get("tokens_seen")]
    return shares[-1] if shares else 1.0


if __name__ == "__main__":
    plot()
