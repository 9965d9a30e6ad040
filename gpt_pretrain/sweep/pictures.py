"""A sweep at a glance: curves, the loss over each swept value, parallel coordinates; rates and batches."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpt_pretrain.sweep.leaderboard import worth
from gpt_pretrain.sweep.probes import RangeTest, Speed, fastest
from gpt_pretrain.sweep.record import FINISHED, Trial
from gpt_pretrain.terminal.text import printable

MOST_SETTINGS = 12  # in one picture
MOST_LABELS = 12  # on one axis


def draw(trials: Sequence[Trial], swept: Sequence[str], folder: Path) -> None:
    """Write curves.png; loss_over_values.png and parallel.png too where two trials or more have a result."""
    measured = [trial for trial in trials if trial.measured()]
    if measured:
        _save(_paint_curves(measured, list(swept)), folder / "curves.png")
    finished = [trial for trial in trials if worth(trial) < math.inf]
    if len(finished) < 2 or not swept:
        return
    keys = list(swept[:MOST_SETTINGS])
    for name, paint in (("loss_over_values", _paint_values), ("parallel", _paint_parallel)):
        _save(paint(finished, keys), folder / f"{name}.png")


def _save(figure: Figure, file: Path) -> None:
    """Whole or not at all."""
    partial = file.with_name(f".{file.stem}.partial.png")
    figure.savefig(partial)
    partial.replace(file)


def _paint_curves(trials: Sequence[Trial], keys: Sequence[str]) -> Figure:
    """Validation loss over steps, a line a trial, the best first. A cross ends one that did not finish."""
    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=130)
    axes = figure.add_subplot()
    for rank, trial in enumerate(trials):
        steps, losses = zip(*sorted(trial.measured().items()), strict=True)
        shade = colormaps["viridis"](0.9 * rank / max(1, len(trials) - 1))
        name = " ".join(_label(trial.point.get(key, "")) for key in keys[:2])
        label = name if rank < MOST_LABELS else None
        axes.plot(steps, losses, color=shade, linewidth=1.3, label=label, zorder=len(trials) - rank)
        if trial.status != FINISHED:
            axes.plot(steps[-1], losses[-1], "x", color=shade, zorder=len(trials))
    axes.set(xlabel="optimizer step", ylabel="validation loss (nats per token)")
    if keys:
        axes.legend(frameon=False, fontsize=7, title=" ".join(map(_label, keys[:2])), title_fontsize=8)
    axes.grid(alpha=0.25)
    return figure


def places(texts: Sequence[str]) -> tuple[list[float], list[tuple[float, str]], bool]:
    """Where values stand on an axis, its labels, and whether it counts by size.

    Numbers stand where they are, by size where they span more than a factor of 20; other texts side by side.
    """
    numbers = [_number(text) for text in texts]
    known = [number for number in numbers if number is not None]
    if len(known) == len(numbers):
        by_size = min(known) > 0 and max(known) / min(known) > 20
        at = [math.log10(number) if by_size else number for number in known]
        ends = sorted({place: f"{number:.4g}" for place, number in zip(at, known, strict=True)}.items())
    else:
        order = {text: float(place) for place, text in enumerate(dict.fromkeys(texts))}
        at, by_size = [order[text] for text in texts], False
        ends = [(place, _label(text)) for text, place in order.items()]
    step = math.ceil(len(ends) / MOST_LABELS)
    return at, ends[::step], by_size


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _label(text: str) -> str:
    shown = printable(text).replace("$", r"\$")  # which begins a formula
    return shown if len(shown) <= 24 else f"{shown[:23]}…"


def _paint_values(trials: Sequence[Trial], keys: Sequence[str]) -> Figure:
    columns = min(3, len(keys))
    rows = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(4 * columns + 0.6, 3.2 * rows), layout="constrained", dpi=130)
    losses = [worth(trial) for trial in trials]
    best = losses.index(min(losses))
    for index, key in enumerate(keys):
        axes = figure.add_subplot(rows, columns, index + 1)
        at, ends, by_size = places([trial.point.get(key, "") for trial in trials])
        axes.scatter(at, losses, s=18, color="#2f6db3", alpha=0.7)
        lowest = {
            place: min(loss for x, loss in zip(at, losses, strict=True) if x == place) for place in set(at)
        }
        axes.plot(*zip(*sorted(lowest.items()), strict=True), color="#8fb8de", linewidth=1, zorder=0)
        axes.scatter(
            [at[best]], [losses[best]], s=60, color="#d1662b", label=f"best {losses[best]:.4f}", zorder=3
        )
        _label_axis(axes, ends)
        axes.set_xlabel(_label(key) + (" (by size)" if by_size else ""))
        if index % columns == 0:
            axes.set_ylabel("best validation loss")
        axes.grid(alpha=0.25)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def _label_axis(axes: Axes, ends: Sequence[tuple[float, str]]) -> None:
    axes.set_xticks([place for place, _ in ends], [text for _, text in ends])
    if sum(len(text) for _, text in ends) > 36:
        axes.tick_params(axis="x", labelrotation=40, labelsize=7)


def _paint_parallel(trials: Sequence[Trial], keys: Sequence[str]) -> Figure:
    """A line a trial through its values, each axis from its lowest to its highest; dark is good."""
    figure = Figure(figsize=(1.8 * (len(keys) + 1) + 1, 4.2), layout="constrained", dpi=130)
    axes = figure.add_subplot()
    losses = [worth(trial) for trial in trials]
    lines: list[list[float]] = [[] for _ in trials]
    names = [*keys, "best_val_loss"]
    for index, key in enumerate(names):
        texts = (
            [repr(loss) for loss in losses]
            if key == "best_val_loss"
            else [t.point.get(key, "") for t in trials]
        )
        at, ends, _ = places(texts)
        low, high = min(at), max(at)
        wide = (high - low) or 1.0
        for line, place in zip(lines, at, strict=True):
            line.append((place - low) / wide)
        axes.axvline(index, color="#999999", linewidth=0.8)
        shown = [(min(losses), f"{min(losses):.4g}"), (max(losses), f"{max(losses):.4g}")]
        for place, text in shown if key == "best_val_loss" else ends:
            height = (math.log10(place) if key == "best_val_loss" and at[0] != losses[0] else place) - low
            axes.text(index + 0.03, height / wide, text, fontsize=7, va="center")
    low, high = min(losses), max(losses)
    for loss, line in sorted(zip(losses, lines, strict=True), reverse=True):
        shade = 0.9 - 0.75 * (loss - low) / ((high - low) or 1.0)
        axes.plot(range(len(line)), line, color=colormaps["viridis_r"](shade), alpha=0.8, linewidth=1.3)
    axes.set_xticks(range(len(names)), [_label(name) for name in names], fontsize=8)
    axes.set(yticks=[], xlim=(-0.1, len(names) - 0.6), ylim=(-0.05, 1.05))
    axes.set_frame_on(False)
    return figure


def draw_ranges(tests: Mapping[str, RangeTest], file: Path) -> None:
    """The loss of each range test over its rate, and where it falls fastest."""
    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=130)
    axes = figure.add_subplot()
    for index, (name, test) in enumerate(tests.items()):
        color = f"C{index % 10}"
        axes.plot(test.rates, test.losses, color=color, alpha=0.3, linewidth=1)
        axes.plot(test.rates, test.smoothed, color=color, label=_label(name) or "smoothed loss")
        if test.suggested is not None:
            label = f"optimizer.lr={test.suggested:.2g}"
            axes.axvline(test.suggested, color=color, linestyle="--", linewidth=1, label=label)
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss (nats per token)")
    _finish(figure, axes, file)


def draw_speeds(groups: Mapping[str, Sequence[Speed]], file: Path) -> None:
    """Tokens a second over the batch size, a line for each group of trials."""
    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=130)
    axes = figure.add_subplot()
    for name, speeds in groups.items():
        at, heights = [speed.batch_size for speed in speeds], [speed.tokens_per_sec for speed in speeds]
        axes.plot(at, heights, marker=".", label=_label(name) or "tokens a second")
        chosen = fastest(speeds)
        if chosen is not None:
            axes.plot([chosen.batch_size], [chosen.tokens_per_sec], "o", color="#d1662b", zorder=3)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="sequences at once (data.batch_size)", ylabel="tokens a second", ylim=(0, None))
    _finish(figure, axes, file)


def _finish(figure: Figure, axes: Axes, file: Path) -> None:
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    _save(figure, file)
