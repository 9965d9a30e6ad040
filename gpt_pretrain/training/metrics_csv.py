"""metrics.csv: one row a step, columns as they first appear."""

import csv
import io
import math
import os
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from gpt_pretrain.runs.folders import replace
from gpt_pretrain.terminal.watching import watching


class MetricsCSV(Logger):
    """Has one row a step, whoever logs. A resumed run keeps those before the step that is due, which
    Lightning's would delete.
    """

    def __init__(self, file: Path, due: int = 0) -> None:
        super().__init__()
        self.file = file
        self.rows: list[dict[str, float]] = []
        self.columns: list[str] = ["step"]
        self._whole = False  # the file holds every row but the newest, in these columns
        if due:
            with watching("metrics.csv"):
                self.rows = [row for row in read_rows(file) if row["step"] < due]
                self.columns = list(dict.fromkeys(["step", *(key for row in self.rows for key in row)]))

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": float(step or 0)} | {key: float(value) for key, value in metrics.items()}
        at = bisect_left(self.rows, row["step"], key=lambda other: other["step"])
        old = self.rows[at] if at < len(self.rows) and self.rows[at]["step"] == row["step"] else {}
        is_newest = at + bool(old) == len(self.rows)
        # Lightning's own count is a step behind, with an epoch that is none of ours: what is there stays.
        row = old | row if is_newest else row | old
        self.rows[at : at + bool(old)] = [row]
        new = [key for key in row if key not in self.columns]
        self.columns += new
        whole, self._whole = self._whole and is_newest and not new and self.file.exists(), False
        if whole:  # in its own place, for all rows anew would take the longer the more there are
            was, line = (self._lines([part] if part else [], header=False).encode() for part in (old, row))
            with self.file.open("r+b") as stream:
                stream.seek(-len(was), os.SEEK_END)
                stream.write(line)
                stream.truncate()
        else:  # beside it first: a full disk or a kill takes no row that was written
            replace(self.file, self._lines(self.rows, header=True).encode())
        self._whole = True

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The settings stand in .hydra/ and in every checkpoint."""

    def _lines(self, rows: list[dict[str, float]], *, header: bool) -> str:
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, self.columns)
        if header:
            writer.writeheader()
        for row in rows:
            writer.writerow({key: _number(value) for key, value in row.items()})
        return stream.getvalue()


def read_rows(file: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, each with the values that it has. Passes over a row that a full disk or a
    killed process has cut, and as few others as leave steps that follow one another.
    """
    rows: list[dict[str, float]] = []
    if not file.is_file():
        return rows
    with file.open(newline="", encoding="utf-8", errors="replace") as stream:
        columns = _fields(stream.readline())
        for line in stream:
            row = _values(columns, _fields(line))
            if 0 <= row.get("step", -1) < math.inf:
                rows.append(row)
    return _rising(rows)


def _rising(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The most rows whose steps rise, of equal ones the first: one wrong digit takes no row but its own."""
    lowest: list[float] = []  # the last step of the best choice of so many rows, which
    ends: list[int] = []  # is that of this row, and
    before: list[int] = []  # stands behind this one
    for number, row in enumerate(rows):
        n = bisect_left(lowest, row["step"])
        before.append(ends[n - 1] if n else -1)
        if lowest[n : n + 1] != [row["step"]]:
            lowest[n : n + 1], ends[n : n + 1] = [row["step"]], [number]
    chosen = []
    at = ends[-1] if ends else -1
    while at >= 0:
        chosen.append(rows[at])
        at = before[at]
    return chosen[::-1]


def _fields(line: str) -> list[str]:
    """None of a line without its end: what is there of its last number may be another one."""
    try:
        return next(csv.reader([line.replace("\0", "")])) if line.endswith("\n") else []
    except (csv.Error, StopIteration):
        return []


def _values(columns: list[str], fields: list[str]) -> dict[str, float]:
    if len(columns) != len(fields):
        return {}
    try:
        return {key: float(text) for key, text in zip(columns, fields, strict=True) if text}
    except ValueError:
        return {}


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
