"""Pictures of what a run measured: the chapter's loss plot, learning rates, runs side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, float]]  # of metrics.csv

LOSSES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("train/loss", "training", {"color": "#8fb8de", "linewidth": 1}),
    ("train/eval_loss", "training, no dropout", {"color": "#2f6db3", "marker": ".", "linewidth": 1}),
    ("val/loss", "validation", {"color": "#d1662b", "marker": ".", "linewidth": 1.5}),
)


def draw_loss(rows: Rows, file: Path, *, tokens_per_step: int, title: str) -> None:
    """Training and validation loss over steps, tokens seen on the second axis, as a picture at `file`."""
    save(loss_figure(rows, tokens_per_step=tokens_per_step, title=title), file)


def loss_figure(rows: Rows, *, tokens_per_step: float, title: str) -> Figure:
    figure, axes = _figure(title=title, xlabel="optimizer step", ylabel="loss (nats per token)")
    for key, label, style in LOSSES:
        _curve(axes, rows, "step", key, label=label, **style)
    axes.legend(frameon=False)
    tokens = axes.secondary_xaxis(
        "top", functions=(lambda x: np.multiply(x, tokens_per_step), lambda x: np.divide(x, tokens_per_step))
    )
    tokens.set_xlabel("tokens seen")
    tokens.xaxis.set_major_formatter(lambda seen, _: _short(seen))
    return figure


def rates_figure(runs: Mapping[str, Rows]) -> Figure:
    """The learning rate over the steps of each run."""
    figure, axes = _figure(title="learning rate", xlabel="optimizer step", ylabel="learning rate")
    for name, rows in runs.items():
        _curve(axes, rows, "step", "lr", label=name, linewidth=1.2)
    axes.legend(frameon=False, fontsize="small")
    return figure


def comparison_figure(runs: Mapping[str, Rows]) -> Figure:
    """Validation loss over tokens of each run; a star marks the lowest of all."""
    figure, axes = _figure(title="validation loss", xlabel="tokens seen", ylabel="loss (nats per token)")
    lowest = {
        name: min(
            (row["val/loss"], row["tokens_seen"]) for row in rows if {"val/loss", "tokens_seen"} <= row.keys()
        )
        for name, rows in runs.items()
        if any({"val/loss", "tokens_seen"} <= row.keys() for row in rows)
    }
    best = min(lowest, key=lambda name: lowest[name], default=None)
    for name, rows in runs.items():
        style = {"linewidth": 2.4, "zorder": 3} if name == best else {"linewidth": 1.1}
        _curve(axes, rows, "tokens_seen", "val/loss", label=name, marker=".", **style)
    if best is not None:
        loss, seen = lowest[best]
        axes.plot(
            [seen], [loss], "*", color="black", markersize=13, zorder=4, label=f"best: {loss:.3f}, {best}"
        )
    axes.xaxis.set_major_formatter(lambda seen, _: _short(seen))
    axes.legend(frameon=False, fontsize="small")
    return figure


def small_figure(rows: Rows, curves: Mapping[str, str], *, title: str, logarithmic: bool = False) -> str:
    """Curves by key and label over steps, as an SVG element that is readable on a phone."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10}):
        figure = Figure(figsize=(4.4, 2.9), layout="constrained")
        axes = figure.add_subplot()
        for key, label in curves.items():
            _curve(axes, rows, "step", key, label=label, linewidth=1.4)
        axes.set(xlabel="optimizer step", title=title)
        if logarithmic:
            axes.set_yscale("log")
        axes.grid(alpha=0.25)
        if len(curves) > 1:
            axes.legend(frameon=False)
        return _svg(figure)


def save(figure: Figure, file: Path) -> None:
    """At `file`, in the format that its name says."""
    figure.savefig(file)


def _svg(figure: Figure) -> str:
    import io

    stream = io.StringIO()
    figure.savefig(
        stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _figure(**labels: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    axes.set(**{key: text.replace("$", r"\$") for key, text in labels.items()})
    axes.grid(alpha=0.25)
    return figure, axes


def _curve(axes: Axes, rows: Rows, x: str, y: str, *, label: str, **style: Any) -> None:
    points = [(row[x], row[y]) for row in rows if x in row and y in row]
    if points:
        # a leading underscore hides a label, a dollar sign begins mathematics
        axes.plot(*zip(*points, strict=True), label=label.replace("$", r"\$").lstrip("_"), **style)


def _short(count: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:g}{letter}"
    return f"{count:g}"
