"""What a sweep will do, said before it does: how many trials and tokens, how long about, what cannot work."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter

from gpt_pretrain.errors import InputError, UserFacingError
from gpt_pretrain.sweep.check import Outlook, Sense, look_at_all
from gpt_pretrain.sweep.record import SweepRecord
from gpt_pretrain.sweep.search import Search
from gpt_pretrain.sweep.space import Point
from gpt_pretrain.sweep.strategies import build_draw, n_trials
from gpt_pretrain.terminal.text import show

MOST_LOOKED_AT = 200_000  # points of a finite space; of a larger one, those that come up
MOST_NAMED = 5
SILENT = 2.0  # seconds, after which who waits is told for what
SECONDS_A_TRIAL = 1.0  # to build the model, to save, to draw


@dataclass(slots=True)
class Ahead:
    """What was found out of the points before any ran."""

    sense: Sense
    search: Search
    outlooks: dict[tuple[str, ...], Outlook | UserFacingError] = field(default_factory=dict)

    def at(self, point: Mapping[str, str]) -> Outlook | UserFacingError:
        """What a point comes to, or why it cannot work."""
        place = tuple(point.values())
        if place not in self.outlooks:
            try:
                self.outlooks[place] = self.sense.look(self.search.space.words(point))
            except UserFacingError as error:
                self.outlooks[place] = error
        return self.outlooks[place]

    def obstacle(self, point: Point) -> UserFacingError | None:
        found = self.at(point)
        return found if isinstance(found, UserFacingError) else None

    def impossible(self) -> list[tuple[Point, UserFacingError]]:
        """The points looked at so far that cannot work."""
        keys = [entry.key for entry in self.search.space.swept]
        return [
            (dict(zip(keys, place, strict=True)), found)
            for place, found in self.outlooks.items()
            if isinstance(found, UserFacingError)
        ]

    def announce(self, record: SweepRecord) -> None:
        """Say what is going to happen. Raises InputError where nothing can, or where that is not wanted."""
        bad, total = self.impossible(), n_trials(self.search.space, self.search.config)
        good = [found for found in self.outlooks.values() if isinstance(found, Outlook)]
        if bad and (not good or self.search.config.impossible == "refuse"):
            point, error = bad[0]
            more = f"; {len(bad) - 1} more points cannot work" if len(bad) > 1 else ""
            remedy = (
                "" if not good else "\nleave them out of the sweep, or pass over them: sweep.impossible=skip"
            )
            refused = InputError(f"{shown(point)}: {_first_line(error)}{more}{remedy}")
            refused.exit_code = error.exit_code
            raise refused
        if not good:
            return
        ended = [trial for trial in record.trials.values() if trial.ended]
        config, n_points = self.search.config, len(self.outlooks)
        n_trials_ = min(total, len(good)) if n_points == self.search.space.n_points else total
        tokens = n_trials_ * sum(found.tokens for found in good) / len(good)
        seconds = self.seconds(good) * max(0, n_trials_ - len(ended))
        of = f" of {n_points:,} points" if n_points > n_trials_ else ""
        how = config.strategy + (f" with {config.prune}" if config.prune != "none" else "")
        show(
            f"sweep   {n_trials_:,} trials{of}, {tokens:,.0f} tokens in all, {how}, "
            f"in about {_duration(seconds)}"
        )
        show(f"        in {record.folder}" + (f": {len(ended)} trials have ended already" if ended else ""))
        for point, error in bad[:MOST_NAMED]:
            show(f"        cannot work: {shown(point)}: {_first_line(error)}")
        if len(bad) > MOST_NAMED:
            show(f"        and {len(bad) - MOST_NAMED} more cannot work")

    def seconds(self, good: list[Outlook]) -> float:
        """Of one trial on the average, by how fast this machine multiplies matrices."""
        mean = sum(found.flops for found in good) / len(good)
        return (mean / _flops_per_second() + SECONDS_A_TRIAL) / self.search.config.jobs


def look_ahead(sense: Sense, search: Search) -> Ahead:
    """Look at every point of a finite space, else at the first that is drawn.

    Raises UserFacingError where the strategy cannot search the space.
    """
    build_draw(search.space, search.config)
    ahead, space = Ahead(sense, search), search.space
    if space.n_points is not None and space.n_points <= MOST_LOOKED_AT:
        due: float | None = perf_counter() + SILENT
        for index, found in enumerate(look_at_all(sense, space)):
            ahead.outlooks[tuple(space.point(index).values())] = found
            if due is not None and perf_counter() > due:
                show(f"sweep   looks at {space.n_points:,} points, to say before the start what cannot work")
                due = None
    else:
        ahead.at(build_draw(space, search.config)(0, {}))
    return ahead


def shown(point: Mapping[str, str]) -> str:
    """A point as one types it."""
    return " ".join(f"{key}={text}" for key, text in point.items()) or "the one point"


def _first_line(error: UserFacingError) -> str:
    return str(error).partition("\n")[0]


def _flops_per_second() -> float:
    """Of training, about a third of what a plain product of matrices reaches."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 384
    matrix = torch.ones(size, size, device=device)
    best = float("inf")
    for _ in range(3):
        began = perf_counter()
        (matrix @ matrix).sum().item()
        best = min(best, perf_counter() - began)
    return 2 * size**3 / best / 3


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
