"""What came out of a sweep: a table sorted by the objective, and the best trial's settings as a file."""

import csv
import io
import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from gpt_pretrain.foreign import to_yaml
from gpt_pretrain.sweep.record import FINISHED, SweepRecord, Trial
from gpt_pretrain.sweep.space import Space
from gpt_pretrain.terminal.text import printable

COLUMNS: dict[str, Callable[[Trial], object]] = {
    "best_val_loss": lambda trial: trial.best_val_loss,
    "val_loss": lambda trial: trial.val_loss,
    "train_loss": lambda trial: trial.train_loss,
    "steps": lambda trial: trial.steps,
    "tokens_seen": lambda trial: trial.tokens_seen,
    "seconds": lambda trial: trial.seconds,
    "seed": lambda trial: trial.seed,
    "status": lambda trial: trial.status,
    "exit_code": lambda trial: trial.exit_code,
    "folder": lambda trial: trial.folder,
    "reason": lambda trial: trial.reason.partition("\n")[0],
}


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """Finished trials by their objective, then all others by their number; equal ones too."""
    return sorted(trials, key=lambda trial: (worth(trial), trial.number))


def worth(trial: Trial) -> float:
    """The objective, infinite where there is none to compare."""
    is_known = trial.status == FINISHED and trial.objective is not None and math.isfinite(trial.objective)
    return float(trial.objective) if is_known and trial.objective is not None else math.inf


def best(trials: Iterable[Trial]) -> Trial | None:
    """The finished trial with the lowest objective; of equal ones the first."""
    first = next(iter(ranked(trials)), None)
    return first if first is not None and worth(first) < math.inf else None


def table(trials: Iterable[Trial], swept: Sequence[str]) -> list[dict[str, object]]:
    """A row a trial: rank, number, its own values of what is swept, and what it came to."""
    rows = []
    for rank, trial in enumerate(ranked(trials), start=1):
        row: dict[str, object] = {"rank": rank if worth(trial) < math.inf else None, "trial": trial.number}
        row |= {key: trial.point.get(key) for key in swept}
        # A point that was refused has no other seed than the one that it was to try.
        rows.append(row | {name: of(trial) for name, of in COLUMNS.items() if name not in row})
    return rows


def write_leaderboard(record: SweepRecord, space: Space) -> None:
    """leaderboard.csv and leaderboard.md, and best.yaml once there is a best."""
    trials, swept = list(record.trials.values()), [entry.key for entry in space.swept]
    rows = table(trials, swept)
    replace(record.folder / "leaderboard.csv", to_csv(rows))
    shares = [f"- {printable(key)}: {share:.0%}\n" for key, share in importance(trials, swept).items()]
    said = "\nHow much of the loss's variance each setting explains by itself:\n\n" if shares else ""
    replace(record.folder / "leaderboard.md", to_markdown(rows, swept) + said + "".join(shares))


def importance(trials: Iterable[Trial], swept: Sequence[str]) -> dict[str, float]:
    """How much of the objective's variance lies between the values of each setting, from 0 to 1.

    Each setting by itself, so what only two together explain counts for neither. Numbers of an interval are
    taken in four groups of one size. Empty where fewer than three trials have a result, or all the same.
    """
    finished = [trial for trial in trials if worth(trial) < math.inf]
    losses = [worth(trial) for trial in finished]
    if len(losses) < 3 or min(losses) == max(losses):
        return {}
    # From 0 to 1: the squares of large ones are beyond all numbers, and shares are the same.
    low, spread = min(losses), max(losses) - min(losses)
    losses = [(loss - low) / spread for loss in losses]
    mean = statistics.fmean(losses)
    whole = sum((loss - mean) ** 2 for loss in losses)
    found = {}
    for key in swept:
        groups: dict[object, list[float]] = {}
        for place, loss in zip(_groups([trial.point[key] for trial in finished]), losses, strict=True):
            groups.setdefault(place, []).append(loss)
        between = sum(len(group) * (statistics.fmean(group) - mean) ** 2 for group in groups.values())
        found[key] = between / whole
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def _groups(texts: Sequence[str]) -> Sequence[object]:
    """The values themselves, or the quarter of each where nearly all differ."""
    if len(set(texts)) <= max(4, len(texts) // 2):
        return texts
    try:
        order = sorted(range(len(texts)), key=lambda index: float(texts[index]))
    except ValueError:
        return texts
    quarters = {index: rank * 4 // len(texts) for rank, index in enumerate(order)}
    return [quarters[index] for index in range(len(texts))]


def to_csv(rows: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([{key: _in_a_sheet(value) for key, value in row.items()} for row in rows])
    return text.getvalue()


def _in_a_sheet(value: object) -> object:
    """A value that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "@", "\t", "\r") else value


def to_markdown(rows: Sequence[Mapping[str, object]], swept: Sequence[str]) -> str:
    """The columns that one reads, the whole table is in the .csv."""
    names = ["rank", "trial", *swept, "best_val_loss", "val_loss", "steps", "seconds", "status", "reason"]
    lines = [names, ["---"] * len(names)]
    lines += [[_cell(row[name]) for name in names] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: object) -> str:
    text = "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
    return printable(text).replace("\n", " ").replace("|", "\\|")


def replace(file: Path, text: str) -> None:
    """Write a file whole or not at all, whatever other process of the sweep writes it meanwhile.

    What is no text, as a name that is no UTF-8, shows by its number.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    partial.replace(file)


def write_best(
    folder: Path, trial: Trial, settings: Mapping[str, object], choices: Mapping[str, str]
) -> None:
    """best.yaml: an option of the group `experiment` that gives the best trial's settings again."""
    defaults = [{f"override /{group}": option} for group, option in choices.items()]
    loss = "" if trial.objective is None else f"{trial.objective:.6g}"
    head = f"# @package _global_\n# Trial {trial.number}, the best of its sweep: validation loss {loss}.\n"
    # The settings are whole, so that they hold wherever the files of an option change later.
    body = to_yaml({"defaults": [*defaults, "_self_"], **settings})
    (folder / "experiment").mkdir(exist_ok=True)  # --config-dir looks for the group's folder
    replace(folder / "experiment" / "best.yaml", head + body)
