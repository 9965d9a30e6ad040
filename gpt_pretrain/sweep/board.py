"""What is said of a sweep while it goes on, and at its end."""

import shlex
from pathlib import Path
from time import monotonic

from gpt_pretrain.config import TrainConfig, to_config, to_plain
from gpt_pretrain.config.border import MEMBERS, escaped, sections
from gpt_pretrain.errors import UserFacingError
from gpt_pretrain.sweep.ahead import Ahead, shown
from gpt_pretrain.sweep.leaderboard import best, importance, ranked, worth, write_best, write_leaderboard
from gpt_pretrain.sweep.queue import Queue, counts
from gpt_pretrain.sweep.record import FINISHED, PRUNED, REFUSED, Trial
from gpt_pretrain.terminal.text import show
from gpt_pretrain.terminal.watching import watching

OFTEN = 5.0  # seconds between two leaderboards
MOST_ROWS = 20


class Board:
    """Reads the records, in whichever process their trials run."""

    def __init__(self, queue: Queue, ahead: Ahead) -> None:
        self.queue, self.record, self.ahead = queue, queue.record, ahead
        self.search = ahead.search
        self.told = {trial.number for trial in self.record.trials.values() if trial.ended}
        self._written, self._best = 0.0, -1  # when the leaderboard was, which trial best.yaml holds

    def look(self) -> None:
        """A line for each trial that has ended since the last look."""
        for trial in self.record.trials.values():
            if trial.ended and trial.number not in self.told:
                self.told.add(trial.number)
                self._tell(trial)
        if monotonic() - self._written > OFTEN:
            self.write()

    def _tell(self, trial: Trial) -> None:
        first = best(self.record.trials.values())
        loss = "" if trial.best_val_loss is None else f"  val loss {trial.best_val_loss:.4f}"
        leader = "" if first is None else f"  best {first.objective:.4f} (trial {first.number})"
        reason = f"  {trial.reason.partition(chr(10))[0]}" if trial.status not in (FINISHED, PRUNED) else ""
        show(
            f"trial {trial.number}: {len(self.told)} of {self.queue.total} ended  {trial.status}{loss}"
            f"{leader}  {trial.seconds:.1f} s  {shown(trial.point)}{reason}"
        )

    def write(self) -> None:
        """The leaderboard's files and best.yaml. What only watches a sweep does not end it."""
        with watching("the leaderboard"):
            write_leaderboard(self.record, self.search.space)
            first = best(self.record.trials.values())
            if first is not None and first.number != self._best:
                self._write_best(first)
                self._best = first.number
        self._written = monotonic()

    def _write_best(self, trial: Trial) -> None:
        sense, words = self.ahead.sense, self.search.space.words(trial.point)
        config = to_config(sense.compose(words), TrainConfig)
        settings = to_plain(config)
        for name in ("sweep", "resume", "debug"):
            del settings[name]
        options = {name: settings[name]["name"] for name, cls in sections(TrainConfig) if cls in MEMBERS}
        write_best(self.record.folder, trial, escaped(settings), options)

    def conclude(self) -> None:
        """The table and what to run next. Raises UserFacingError with the worst exit code that there is."""
        trials = ranked(self.record.trials.values())
        folder, swept = self.record.folder, [entry.key for entry in self.search.space.swept]
        with watching("the sweep's pictures"):
            from gpt_pretrain.sweep.pictures import draw  # matplotlib takes a while

            draw(trials, swept, folder)
        show()
        for line in _lines(trials[:MOST_ROWS], swept):
            show(line)
        if len(trials) > MOST_ROWS:
            show(f"and {len(trials) - MOST_ROWS} more")
        shares = importance(trials, swept)
        if shares:
            said = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
            show(f"of the loss's variance explain: {said}")
        show()
        if self.search.config.seeks != "loss":
            with watching("what the sweep has found"):
                from gpt_pretrain.sweep.findings import conclude  # matplotlib takes a while

                for line in conclude(self.record, self.search.config):
                    show(line)
            show(f"in {_short(folder)}")
            self._raise_worst(trials)
            return
        show(f"in {_short(folder)}: leaderboard.csv, leaderboard.md, and pictures of it: *.png")
        if best(trials) is not None:
            show(f"next    python train.py --config-dir {shlex.quote(_short(folder))} experiment=best")
        self._raise_worst(trials)

    def _raise_worst(self, trials: list[Trial]) -> None:
        others = self.queue.others()
        if others:
            where = sorted({f"{trial.host or 'another process'}, pid {trial.pid}" for trial in others})
            show(f"{len(others)} trials still run elsewhere: {', '.join(where[:3])}")
        left, gave_up = self.queue.left(), self.queue.has_given_up()
        if left and not gave_up:
            error = UserFacingError(
                f"{left} of {self.queue.total} trials have not ended: their processes did, see "
                f"{_short(self.record.folder / 'workers')}; the same command goes on with them"
            )
            error.exit_code = 5
            raise error
        failed = [trial for trial in trials if counts(trial, self.search.config)]
        if not failed:
            return
        worst = max(failed, key=lambda trial: trial.exit_code or 0)
        named = [f"trial {trial.number} ({shown(trial.point)}): {_cause(trial)}" for trial in failed[:2]]
        if len(failed) > 2:
            can_change = any(trial.status != REFUSED for trial in failed)
            advice = (
                "sweep.retry=true runs them again" if can_change else "sweep.impossible=skip leaves them out"
            )
            named[1] = f"and {len(failed) - 1} more, see leaderboard.md; {advice}"
        if left and gave_up:
            named.append(f"{left} more were not begun or have not ended: sweep.most_failures={gave_up}")
        error = UserFacingError("\n".join([f"{len(failed)} of {len(trials)} trials have no result", *named]))
        error.exit_code = worst.exit_code or 1
        raise error


def _cause(trial: Trial) -> str:
    return trial.reason.partition("\n")[0]


def _lines(trials: list[Trial], swept: list[str]) -> list[str]:
    """The first rows of the leaderboard, in columns."""
    rows = [["rank", "trial", *swept, "val loss", "steps", "seconds", "status"]]
    for rank, trial in enumerate(trials, start=1):
        known = worth(trial) < float("inf")
        loss = "" if trial.best_val_loss is None else f"{trial.best_val_loss:.4f}"
        own = [trial.point.get(key, "") for key in swept]
        steps = "" if trial.steps is None else f"{trial.steps:,}"
        rows.append(
            [
                str(rank) if known else "",
                str(trial.number),
                *own,
                loss,
                steps,
                f"{trial.seconds:.1f}",
                trial.status,
            ]
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _short(folder: Path) -> str:
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
