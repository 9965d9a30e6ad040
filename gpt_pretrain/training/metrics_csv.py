"""metrics.csv: one row a step, columns as they first appear."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from gpt_pretrain.terminal.watching import watching


class MetricsCSV(Logger):
    """Appends a row a step. A resumed run keeps those up to `first_step`, which Lightning's would delete."""

    def __init__(self, file: Path, first_step: int = 0) -> None:
        super().__init__()
        self.file = file
        self.rows: list[dict[str, float]] = []
        self.columns: list[str] = ["step"]
        self._whole = False  # the file holds every row but the newest, in these columns
        if first_step:
            with watching("metrics.csv"):
                self.rows = [row for row in read_rows(file) if row["step"] <= first_step]
                self.columns = list(dict.fromkeys(["step", *(key for row in self.rows for key in row)]))

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": float(step or 0), **metrics}
        self.rows.append(row)
        new = [key for key in row if key not in self.columns]
        self.columns += new
        whole, self._whole = self._whole and not new and self.file.exists(), False
        if whole:
            self._write(self.file, [row], "a")
        else:  # beside it first: a full disk takes no row that was written
            partial = self.file.with_name(f".{self.file.name}.partial")
            self._write(partial, self.rows, "w")
            partial.replace(self.file)
        self._whole = True

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The settings stand in .hydra/ and in every checkpoint."""

    def _write(self, file: Path, rows: list[dict[str, float]], mode: str) -> None:
        with file.open(mode, newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, self.columns)
            if mode == "w":
                writer.writeheader()
            for row in rows:
                writer.writerow({key: _number(value) for key, value in row.items()})


def read_rows(file: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, each with the values that it has. Passes over a row that a full disk or a
    killed process has cut, and what is no row.
    """
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8", errors="replace") as stream:
        rows = [_values(row) for row in csv.DictReader(line.replace("\0", "") for line in stream)]
    return [row for row in rows if "step" in row]


def _values(row: dict[str, str]) -> dict[str, float]:
    try:
        return {key: float(text) for key, text in row.items() if text}
    except (TypeError, ValueError):
        return {}


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
