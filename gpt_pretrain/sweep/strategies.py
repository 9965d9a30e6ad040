"""Which point comes next, and which trial goes on: functions of the records alone, so that a search that was
killed, or that several processes share, needs no other memory. Optuna draws where it is asked for.
"""

import random
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gpt_pretrain.config.sweep import SweepConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.sweep.record import FINISHED, PAUSED, PRUNED, WITHOUT_RESULT, Trial
from gpt_pretrain.sweep.space import Point, Space, Swept

if TYPE_CHECKING:
    import optuna

WITHOUT_END = 20  # trials, where the space has no end and nobody said how many
MOST_SHUFFLED = 1_000_000  # points; of more, hardly any is drawn twice
UNJUDGED = 5  # trials that the median lets be
Draw = Callable[[int, Mapping[int, Trial]], Point]  # a number and the trials so far to that number's point


def n_trials(space: Space, config: SweepConfig) -> int:
    """How many trials the search has."""
    if space.n_points is None:
        return config.trials or WITHOUT_END
    if config.strategy in ("tpe", "cmaes"):
        return config.trials or min(space.n_points, WITHOUT_END)
    return min(space.n_points, config.trials or space.n_points)


def next_number(total: int, trials: Collection[int], left_out: Collection[int]) -> int | None:
    """The first number without a trial."""
    return next((number for number in range(total) if number not in trials and number not in left_out), None)


def build_draw(space: Space, config: SweepConfig) -> Draw:
    """Raises InputError where the strategy cannot search the space, or needs what is not installed."""
    if config.strategy in ("tpe", "cmaes"):
        return _OptunaDraw(space, config)
    if config.strategy == "grid":
        endless = next((entry for entry in space.swept if entry.values is None), None)
        if endless is not None:
            raise InputError(
                f"{endless.key}={endless.typed} has no end of values, and a grid tries each: give a list, "
                "or choose sweep=random, or sweep=tpe (with pip install '.[sweep]')"
            )
        return lambda number, trials: space.point(number)
    if space.n_points is None:
        return lambda number, trials: _drawn(space, random.Random(f"{config.seed} {number}"))
    if space.n_points > MOST_SHUFFLED:
        return lambda number, trials: _drawn(space, random.Random(f"{config.seed} {number}"))
    # Each point once, in an order that more trials do not change.
    order = list(range(space.n_points))
    random.Random(config.seed).shuffle(order)
    return lambda number, trials: space.point(order[number])


def _drawn(space: Space, chance: random.Random) -> Point:
    return {entry.key: entry.draw(chance) for entry in space.swept}


class _OptunaDraw:
    """Optuna's samplers over a study that is made from the records, and lives in memory.

    Its own storage would be a second truth beside the records, and CMA-ES keeps pickles in it.
    """

    def __init__(self, space: Space, config: SweepConfig) -> None:
        try:
            import optuna
        except ImportError as error:
            raise InputError(
                f"sweep={config.strategy} draws with Optuna, which is not installed: pip install '.[sweep]'"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.config = space, config
        self.distributions = {entry.key: _distribution(entry) for entry in space.swept}
        if config.strategy == "cmaes":
            self._check_numbers()

    def __call__(self, number: int, trials: Mapping[int, Trial]) -> Point:
        return self._asked(
            number, self._cmaes(trials) if self.config.strategy == "cmaes" else self._tpe(number, trials)
        )

    def _tpe(self, number: int, trials: Mapping[int, Trial]) -> "optuna.Study":
        import optuna

        # The seed moves with the number: a search that goes on must not repeat itself.
        sampler = optuna.samplers.TPESampler(seed=self.config.seed + number, n_startup_trials=5)
        study = optuna.create_study(sampler=sampler)
        for trial in trials.values():
            study.add_trial(self._frozen(trial))
        return study

    def _cmaes(self, trials: Mapping[int, Trial]) -> "optuna.Study":
        """CMA-ES remembers its generations: it is asked and told everything again, in order."""
        import warnings

        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is experimental
            sampler = optuna.samplers.CmaEsSampler(seed=self.config.seed + 1, warn_independent_sampling=False)
        study = optuna.create_study(sampler=sampler)
        for trial in trials.values():
            asked = study.ask(self.distributions)
            value = objective_so_far(trial)
            if value is None:
                study.tell(asked, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(asked, value)
        return study

    def _asked(self, number: int, study: "optuna.Study") -> Point:
        values = study.ask(self.distributions).params
        return {entry.key: _text(entry, values[entry.key]) for entry in self.space.swept}

    def _frozen(self, trial: Trial) -> "optuna.trial.FrozenTrial":
        import optuna

        value = objective_so_far(trial)
        states = optuna.trial.TrialState
        if value is None:
            state = states.FAIL if trial.status in WITHOUT_RESULT else states.RUNNING
        else:
            state = states.COMPLETE
        values: dict[str, Any] = {
            entry.key: _value(entry, trial.point[entry.key]) for entry in self.space.swept
        }
        return optuna.trial.create_trial(
            state=state, value=value, params=values, distributions=self.distributions
        )

    def _check_numbers(self) -> None:
        for entry in self.space.swept:
            if entry.values is not None:
                raise InputError(
                    f"sweep=cmaes searches numbers, and {entry.key}={entry.typed} is a list: "
                    "give an interval(), or choose sweep=tpe"
                )
        try:
            import cmaes  # noqa: F401
        except ImportError as error:
            raise InputError(
                "sweep=cmaes needs the package cmaes, which is not installed: pip install '.[sweep]'"
            ) from error


def _distribution(entry: Swept) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if entry.values is not None:
        return CategoricalDistribution(entry.values)
    if entry.whole:
        return IntDistribution(int(entry.low), int(entry.high), log=entry.log)
    return FloatDistribution(entry.low, entry.high, log=entry.log)


def _text(entry: Swept, value: Any) -> str:
    return str(value) if entry.values is not None else entry.text(value)


def _value(entry: Swept, text: str) -> Any:
    return text if entry.values is not None else int(text) if entry.whole else float(text)


def objective_so_far(trial: Trial) -> float | None:
    """What a trial is worth to a sampler: one that was given up counts by what it had reached."""
    if trial.objective is not None and trial.status == FINISHED:
        return trial.objective
    if trial.status in (PRUNED, PAUSED):
        return min(trial.measured().values(), default=None)
    return None


def median_gives_up(own: Mapping[int, float], others: Iterable[Trial], from_step: int) -> bool:
    """Whether the best that a trial had up to its newest step is worse than the median of what the finished
    ones had at that step. The first five trials are let be. As Optuna's MedianPruner decides.
    """
    step = max(own)
    finished = [trial for trial in others if trial.status == FINISHED]
    then = [values[step] for trial in finished if step in (values := trial.measured())]
    if step < from_step or len(finished) < UNJUDGED or not then:
        return False
    return min(own.values()) > statistics.median(then)


def rungs(config: SweepConfig, steps: int, next_evaluation: Callable[[int], int]) -> list[int]:
    """The steps at which halving compares trials of `steps` steps: as given, else from a ninth of a run on.

    Each is an evaluation's, since there is nothing to compare between two.
    """
    wanted = config.prune_at or [max(1, steps // config.reduction**power) for power in (2, 1)]
    return sorted({step for step in map(next_evaluation, wanted) if step < steps})


def promoted(trials: Iterable[Trial], reduction: int) -> Trial | None:
    """The paused trial that goes on next: one of the best that reached its rung, the highest rung first.

    Nobody waits for a rung to fill, as in ASHA (Li et al. 2020, arXiv:1810.05934).
    """
    trials = list(trials)
    paused = [trial for trial in trials if trial.status == PAUSED and trial.reached]
    for rung in sorted({len(trial.reached) for trial in paused}, reverse=True):
        there = sorted(
            (trial for trial in trials if len(trial.reached) >= rung),
            key=lambda trial: trial.reached[rung - 1],
        )
        going = [trial for trial in there if trial.status not in WITHOUT_RESULT]  # who failed leaves a place
        for trial in going[: max(1, len(there) // reduction)]:
            if trial.status == PAUSED and len(trial.reached) == rung:
                return trial
    return None
