"""What to run next: trials that were interrupted, new ones, and those that halving lets go on."""

from collections.abc import Callable, Sequence

from gpt_pretrain.config.sweep import SweepConfig
from gpt_pretrain.errors import ArtifactError, UserFacingError
from gpt_pretrain.sweep.ahead import MOST_LOOKED_AT
from gpt_pretrain.sweep.probes import is_settled
from gpt_pretrain.sweep.record import (
    DIVERGED,
    FAILED,
    INTERRUPTED,
    MOST_DEATHS,
    PAUSED,
    PRUNED,
    REFUSED,
    RUNNING,
    WAITING,
    WITHOUT_RESULT,
    SweepRecord,
    Trial,
    now,
)
from gpt_pretrain.sweep.search import Search
from gpt_pretrain.sweep.space import Point
from gpt_pretrain.sweep.strategies import build_draw, n_trials, next_number, promoted
from gpt_pretrain.sweep.trial import outcome

Obstacle = Callable[[Point], UserFacingError | None]  # why a point cannot work


class Queue:
    """Hands out the trials of a sweep, each to one process at a time."""

    def __init__(self, record: SweepRecord, search: Search, obstacle: Obstacle) -> None:
        self.record, self.space, self.config = record, search.space, search.config
        self.obstacle, self.version = obstacle, search.version
        self.total = n_trials(self.space, self.config)
        self.draw = build_draw(self.space, self.config)
        self.left_out: set[int] = set()  # numbers of points that cannot work, and are skipped

    def refresh(self) -> None:
        """Read the records. Raises ArtifactError for a trial that is none of this search."""
        for number, trial in self.record.refresh().items():
            if not self.space.holds(trial.point):
                raise ArtifactError(f"{self.record.file(number).file} is no point of this search")

    def begin(self) -> None:
        """Let trials without a result wait again, where that is asked for. Raises ArtifactError."""
        with self.record.turn():
            self.refresh()
            for number, trial in self.record.trials.items():
                again = self.config.retry and trial.status in WITHOUT_RESULT
                if again and not self.record.is_taken(number):
                    self.record.update(
                        # What it measured stands: it goes on from its checkpoint, and measures over the rest.
                        number,
                        status=WAITING,
                        reason="",
                        exit_code=None,
                        deaths=0,
                    )

    def next(self, at_most: int) -> list[Trial]:
        """Take up to so many trials for this process; none where there is nothing left to take."""
        taken: list[Trial] = []
        with self.record.turn():
            self.refresh()
            for trial in list(self.record.trials.values()):
                if len(taken) == at_most or self.has_given_up():
                    return taken
                if trial.ended or trial.status == PAUSED or not self._take(trial.number):
                    continue
                if trial.status == RUNNING and trial.deaths + 1 >= MOST_DEATHS:
                    self._give_up(trial)
                    continue
                taken.append(trial)
            while (
                len(taken) < at_most
                and not self.has_given_up()
                and (trial_ := self._new() or self._promoted()) is not None
            ):
                taken.append(trial_)
        return taken

    def _give_up(self, trial: Trial) -> None:
        """Of a trial that ends its process each time, and with it the sweep, or a worker of it."""
        reason = f"its process died {MOST_DEATHS} times on end without a word, as when memory runs out"
        self.record.update(trial.number, status=FAILED, exit_code=5, reason=reason)
        self.record.release([trial.number])

    def _take(self, number: int) -> bool:
        return number not in self.record.taken and self.record.take(number)

    def _new(self) -> Trial | None:
        """A trial of the next point that can work, recorded and taken."""
        while (number := next_number(self.total, self.record.trials, self.left_out)) is not None:
            point = self.draw(number, self.record.trials)
            if is_settled(self.config, point, self.record):
                self.left_out.add(number)
                continue
            obstacle = self.obstacle(point)
            if obstacle is not None and self.config.impossible == "skip" and self.space.n_points is not None:
                self.left_out.add(number)
                continue
            trial = Trial(number=number, point=point, words=self.space.words(point), version=self.version)
            if obstacle is not None:
                trial.status, trial.exit_code, trial.reason = outcome(obstacle)
                trial.status, trial.started = REFUSED, now()
                self.record.add(trial)
                continue
            self.record.add(trial)
            if self._take(number):
                return trial
        return None

    def _promoted(self) -> Trial | None:
        if self.config.prune != "halving":
            return None
        free = [trial for number, trial in self.record.trials.items() if number not in self.record.taken]
        chosen = promoted(free, self.config.reduction)
        return chosen if chosen is not None and self._take(chosen.number) else None

    def settle(self, trials: Sequence[Trial], errors: dict[int, BaseException], again: bool) -> None:
        """After a launch. A trial that does not say how it ended has died, or never began, whatever it was
        before: it has failed, since another launch would end as this one has.

        `trials` are as they were taken, `errors` what the launcher says of them by their numbers. With
        `again` those without an end are left as they are, for another launch.
        """
        self.refresh()
        for trial in trials:
            now_ = self.record.trials[trial.number]
            if again or self.record.runs_on(
                trial.number
            ):  # a cluster's job, though the launcher has given up
                continue
            if now_.ended or (now_ != trial and now_.status in (PAUSED, INTERRUPTED)):
                continue
            status, code, reason = FAILED, 5, "its process ended without a word, as when memory runs out"
            if trial.number in errors:
                told = outcome(errors[trial.number])
                if now_ == trial:  # it did not come to begin
                    status, code, reason = told
                else:
                    reason = f"{reason}; its launcher says {told[2]}"
            self.record.update(trial.number, status=status, exit_code=code, reason=reason)
        self.record.release(trial.number for trial in trials)

    def others(self) -> list[Trial]:
        """Trials that other processes run at this moment."""
        with self.record.turn():  # else who looks for a trial could find it taken by this look
            self.refresh()
            unfinished = [number for number, trial in self.record.trials.items() if not trial.ended]
            return [self.record.trials[number] for number in unfinished if self.record.is_taken(number)]

    def has_begun(self, trials: Sequence[Trial]) -> bool:
        """Whether one of these, as they were when they were taken, has written anything since."""
        self.refresh()
        return any(self.record.trials[trial.number] != trial for trial in trials)

    def has_died(self) -> bool:
        """Whether a trial's process has died, which is to be begun again."""
        if all(trial.status != RUNNING for trial in self.record.trials.values()):
            return False
        others = {trial.number for trial in self.others()}
        return any(
            trial.status == RUNNING and trial.number not in others for trial in self.record.trials.values()
        )

    def left(self) -> int:
        """How many trials have not ended, and no process has."""
        others = {trial.number for trial in self.others()}
        begun = sum(not trial.ended for number, trial in self.record.trials.items() if number not in others)
        known = self.record.trials.keys() | self.left_out
        n_new = self.total - sum(number < self.total for number in known)
        n_points = self.space.n_points
        if n_points is None or not n_new:
            return begun + n_new
        if n_points > MOST_LOOKED_AT:  # to compose each would take hours
            return begun + (0 if self.record.has_ended(self.total) else n_new)
        new = (number for number in range(self.total) if number not in known)
        return begun + sum(map(self._is_due, new))

    def _is_due(self, number: int) -> bool:
        if self.config.impossible == "skip" and self.config.strategy in ("tpe", "cmaes"):
            return False  # what it was is not known any more: today it would draw another point
        point = self.draw(number, self.record.trials)
        passed_over = self.config.impossible == "skip" and self.obstacle(point) is not None
        return not passed_over and not is_settled(self.config, point, self.record)

    def has_given_up(self) -> int:
        """The number of failures that this sweep bears, once there are so many; else 0."""
        tried = [trial for trial in self.record.trials.values() if trial.status != REFUSED]
        failed = sum(counts(trial, self.config) for trial in tried)
        most = self.config.most_failures
        return most if most is not None and failed >= most else 0

    def end(self) -> None:
        """Nothing is left to run: what halving let pause is given up."""
        with self.record.turn():
            self.record.end(self.total)
            for number, trial in list(self.record.trials.items()):
                if trial.status == PAUSED and not self.record.is_taken(number):
                    self.record.update(number, status=PRUNED, reason="not among the best of its rung")


def counts(trial: Trial, config: SweepConfig) -> bool:
    """Whether a trial's exit code is one of the sweep's: but those of points that were to be passed over,
    and of what was tried until it failed.
    """
    passed_over = trial.status == REFUSED and config.impossible == "skip"
    passed_over |= trial.status == DIVERGED and config.seeks == "lr_range"  # the rate was raised for that
    passed_over |= trial.exit_code == 5 and config.seeks == "batch_size"  # or memory has ended
    return trial.status in WITHOUT_RESULT and not passed_over
