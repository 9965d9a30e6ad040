"""What a search for one number has found: a table, a picture, and what is suggested."""

import csv
import io
from collections.abc import Mapping

from gpt_pretrain.config.sweep import SweepConfig
from gpt_pretrain.sweep.leaderboard import replace
from gpt_pretrain.sweep.pictures import draw_ranges, draw_speeds
from gpt_pretrain.sweep.probes import BATCH, Speed, fastest, measure, range_test, rows_of, size, without_batch
from gpt_pretrain.sweep.record import DIVERGED, FINISHED, SweepRecord

Table = list[list[object]]


def conclude(record: SweepRecord, config: SweepConfig) -> list[str]:
    """Write the sweep's table and its picture, and say what they suggest."""
    return _conclude_rates(record) if config.seeks == "lr_range" else _conclude_batches(record)


def _conclude_rates(record: SweepRecord) -> list[str]:
    trials = [trial for trial in record.trials.values() if trial.status in (FINISHED, DIVERGED)]
    table: Table = [["trial", "lr", "loss", "smoothed"]]
    lines: list[str] = []
    curves = {}
    for trial in trials:
        test = range_test(rows_of(record, trial))
        points = zip(test.rates, test.losses, test.smoothed, strict=True)
        table += [[trial.number, *map(repr, point)] for point in points]
        curves[_name(trial.point)] = test
        beside = f"  {_name(trial.point)}" if trial.point else ""
        if test.suggested is None:
            lines.append(f"no rate: the loss falls nowhere{beside}")
        else:
            lines.append(f"suggested  optimizer.lr={test.suggested:.2g}, lowest at {test.lowest:.2g}{beside}")
        if trial.status == DIVERGED:
            lines.append("           the run has diverged: it was meant to, the rate rose until it did")
    _write(record, "lr_range.csv", table)
    draw_ranges(curves, record.folder / "lr_range.png")
    return [*lines, "           where the loss falls fastest: lr_range.csv, lr_range.png"]


def _conclude_batches(record: SweepRecord) -> list[str]:
    groups: dict[str, list[Speed]] = {}
    for trial in sorted(record.trials.values(), key=lambda trial: size(trial.point)):
        found = measure(record, trial)
        if found is not None:
            groups.setdefault(_name(without_batch(trial.point)), []).append(found)
    table: Table = [["settings", BATCH, "tokens_per_sec", "memory_mb"]]
    lines: list[str] = []
    for name, speeds in groups.items():
        for found in speeds:
            table.append([name, found.batch_size, f"{found.tokens_per_sec:.1f}", f"{found.memory_mb:.0f}"])
            lines.append(
                f"{BATCH}={found.batch_size:<6} {found.tokens_per_sec:10,.0f} tokens/s "
                f"{found.memory_mb:10,.0f} MB  {name}".rstrip()
            )
        chosen = fastest(speeds)
        if chosen is not None:
            lines.append(f"suggested  {BATCH}={chosen.batch_size}  {name}".rstrip())
    _write(record, "batch_size.csv", table)
    draw_speeds(groups, record.folder / "batch_size.png")
    return [*lines, "           the smallest that is nearly the fastest: batch_size.csv, batch_size.png"]


def _name(point: Mapping[str, str]) -> str:
    return " ".join(f"{key}={text}" for key, text in point.items())


def _write(record: SweepRecord, name: str, table: Table) -> None:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(table)
    replace(record.folder / name, stream.getvalue())
