"""The loss plot: training and validation loss over steps, tokens seen on the second axis."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def draw_loss(rows: Sequence[dict[str, float]], file: Path, *, tokens_per_step: int, title: str) -> None:
    """Draw the rows of metrics.csv as a picture at `file`."""
    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    curves: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("train/loss", "training", {"color": "#8fb8de", "linewidth": 1}),
        ("train/eval_loss", "training, no dropout", {"color": "#2f6db3", "marker": ".", "linewidth": 1}),
        ("val/loss", "validation", {"color": "#d1662b", "marker": ".", "linewidth": 1.5}),
    )
    for key, label, style in curves:
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.set(xlabel="optimizer step", ylabel="loss (nats per token)", title=title)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    tokens = axes.secondary_xaxis(
        "top", functions=(lambda x: np.multiply(x, tokens_per_step), lambda x: np.divide(x, tokens_per_step))
    )
    tokens.set_xlabel("tokens seen")
    tokens.xaxis.set_major_formatter(lambda seen, _: _short(seen))
    figure.savefig(file)


def _short(count: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:g}{letter}"
    return f"{count:g}"
