"""The chapter's picture of next tokens: their probabilities, and what temperatures make of them."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

TEMPERATURES = (1.0, 0.1, 5.0)  # the chapter's


def draw_next_tokens(logits: Tensor, labels: Sequence[str], file: Path | None = None) -> bytes:
    """Bars of the likeliest tokens' probabilities at the chapter's three temperatures, as PNG.

    `logits` are those of the whole vocabulary (V,), `labels` the texts of the likeliest, likeliest first.
    """
    from matplotlib.figure import Figure

    ids = logits.topk(len(labels)).indices
    figure = Figure(figsize=(1.5 + 0.6 * len(ids), 3.5), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    for at, temperature in enumerate(TEMPERATURES):
        heights = scaled_probabilities(logits, temperature)[ids].tolist()
        places = [place + 0.25 * (at - 1) for place in range(len(ids))]
        axes.bar(places, heights, 0.25, label=f"temperature {temperature:g}")
    shown = [repr(label)[1:-1].replace("$", r"\$") for label in labels]
    axes.set_xticks(range(len(ids)), shown, rotation=60, ha="right")
    axes.set_ylabel("probability")
    axes.legend()
    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # drawn as a box
        figure.savefig(png, format="png")
    if file is not None:
        file.write_bytes(png.getvalue())
    return png.getvalue()


def scaled_probabilities(logits: Tensor, temperature: float) -> Tensor:
    return torch.softmax(logits / temperature, -1)
