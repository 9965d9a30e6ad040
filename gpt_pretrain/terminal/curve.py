"""Curves drawn with letters, for a terminal and a log file of any encoding."""

import math
from collections.abc import Mapping, Sequence

Points = Sequence[tuple[float, float]]  # (x, y)


def draw(curves: Mapping[str, Points], *, width: int, height: int, x_label: str) -> list[str]:
    """Lines of at most `width` columns. Each curve is drawn with the first letter of its name, a later one
    over an earlier one; what is no number (nan, inf) is left out. No line where there is nothing to draw.
    """
    finite = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in curves.items()
    }
    everything = [point for points in finite.values() for point in points]
    if len(everything) < 2:
        return []
    (left, right), (low, high) = (_span([point[axis] for point in everything]) for axis in (0, 1))
    marks = [f"{value:.3g}" for value in (high, (low + high) / 2, low)]
    margin = max(map(len, marks))
    columns = max(2, width - margin - 2)
    canvas = [[" "] * columns for _ in range(height)]
    for name, points in finite.items():
        for column, y in _thinned(points, left, right, columns):
            canvas[round((high - y) / (high - low) * (height - 1))][column] = name[0]
    labelled = dict(zip((0, (height - 1) // 2, height - 1), marks, strict=True))
    lines = [f"{labelled.get(row, ''):>{margin}} |{''.join(cells)}" for row, cells in enumerate(canvas)]
    legend = "   ".join(f"{name[0]} {name}" for name, points in finite.items() if points)
    first, last = f"{left:,.0f}", f"{right:,.0f} {x_label}"
    below = f"{first}{last:>{max(0, columns - len(first))}}"
    under = [f"{'':{margin}} +{'-' * columns}", f"{'':{margin}}  {below}", f"{'':{margin}}  {legend}"]
    return [line.rstrip()[: max(width, 1)] for line in lines + under]


def _span(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _thinned(points: Points, left: float, right: float, columns: int) -> list[tuple[int, float]]:
    """One point a column, between measured ones too: on the straight line that joins them."""
    if not points:
        return []
    points = sorted(points)
    drawn: dict[int, float] = {}
    for (x, y), (next_x, next_y) in zip(points, [*points[1:], points[-1]], strict=True):
        begin, end = (round((at - left) / (right - left) * (columns - 1)) for at in (x, next_x))
        for column in range(begin, max(begin, end - 1) + 1):
            share = (column - begin) / (end - begin) if end > begin else 0.0
            drawn.setdefault(column, y + share * (next_y - y))
    drawn[max(drawn)] = points[-1][1]
    return sorted(drawn.items())
