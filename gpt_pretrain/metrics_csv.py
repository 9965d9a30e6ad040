"""metrics.csv: one row a step, columns as they first appear."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only


class MetricsCSV(Logger):
    """Appends a row a step. A resumed run keeps the rows up to `first_step`; Lightning's own logger deletes
    them.
    """

    def __init__(self, file: Path, first_step: int = 0) -> None:
        super().__init__()
        self.file = file
        self.rows = [row for row in read_rows(file) if row["step"] <= first_step] if first_step else []
        self.columns: list[str] = ["step"]

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
        new = [key for entry in self.rows for key in entry if key not in self.columns]
        if new or not self.file.exists():
            self.columns += dict.fromkeys(new)
            self._write(self.rows, "w")
        else:
            self._write([row], "a")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The settings stand in .hydra/ and in every checkpoint."""

    def _write(self, rows: list[dict[str, float]], mode: str) -> None:
        with self.file.open(mode, newline="") as stream:
            writer = csv.DictWriter(stream, self.columns)
            if mode == "w":
                writer.writeheader()
            for row in rows:
                writer.writerow({key: _number(value) for key, value in row.items()})


def read_rows(file: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, each with the values that it has."""
    if not file.is_file():
        return []
    with file.open(newline="") as stream:
        return [{key: float(text) for key, text in row.items() if text} for row in csv.DictReader(stream)]


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
