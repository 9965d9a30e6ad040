"""The points of a sweep: what the words of its command line span. Hydra's grammar, a value at a time."""

import itertools
import math
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Transformer

from gpt_pretrain.errors import InputError

Point = dict[str, str]  # setting, with its + and @package as typed, to the value's text in Hydra's grammar


@dataclass(kw_only=True, slots=True, frozen=True)
class Swept:
    """A setting that takes several values: a list of texts, or all numbers of an interval."""

    key: str
    typed: str  # the values as they were given
    values: tuple[str, ...] | None = None  # None: an interval
    low: float = 0.0
    high: float = 0.0
    log: bool = False  # drawn by size, not uniformly
    whole: bool = False  # whole numbers only

    def draw(self, chance: random.Random) -> str:
        """One of the values."""
        if self.values is not None:
            return chance.choice(self.values)
        low, high = (math.log(end) if self.log else end for end in (self.low, self.high))
        value = chance.uniform(low, high)
        return self.text(math.exp(value) if self.log else value)

    def holds(self, text: str) -> bool:
        """Whether a text, which may come from a foreign record, is one of the values."""
        if self.values is not None:
            return text in self.values
        grammar = r"-?(0|[1-9][0-9]{0,29})" if self.whole else r"-?[0-9.]{1,30}(e[+-]?[0-9]{1,3})?"
        number = re.fullmatch(grammar, text)
        try:
            return number is not None and self.low <= float(text) <= self.high
        except ValueError:
            return False

    def text(self, value: float) -> str:
        """A number of the interval as Hydra's grammar has it; a rounding error does not leave it."""
        value = min(max(value, self.low), self.high)
        return str(round(value)) if self.whole else repr(float(value))


@dataclass(kw_only=True, slots=True, frozen=True)
class Space:
    """The words that every trial shares, and the settings that differ."""

    fixed: tuple[str, ...]
    swept: tuple[Swept, ...]

    @property
    def n_points(self) -> int | None:
        """None where an interval has no end of them."""
        sizes = [None if entry.values is None else len(entry.values) for entry in self.swept]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    def point(self, index: int) -> Point:
        """A point of the grid, the last setting changing fastest, as Hydra's own sweeper has it."""
        texts = []
        for entry in reversed(self.swept):
            assert entry.values is not None
            index, place = divmod(index, len(entry.values))
            texts.append((entry.key, entry.values[place]))
        return dict(reversed(texts))

    def holds(self, point: Mapping[str, str]) -> bool:
        """Whether a point, which may come from a foreign record, is one of this space's."""
        return [entry.key for entry in self.swept] == list(point) and all(
            entry.holds(point[entry.key]) for entry in self.swept
        )

    def words(self, point: Mapping[str, str]) -> list[str]:
        """A trial's settings as the words of a command line, without the sweep's own."""
        own = [f"{key}={text}" for key, text in point.items()]
        return [*(word for word in self.fixed if not is_sweeps_own(word)), *own]


def is_sweeps_own(word: str) -> bool:
    """Whether a word says how to sweep, and nothing of a trial."""
    return word.lstrip("+~").startswith(("sweep=", "sweep."))


def read_space(words: Iterable[str], loader: ConfigLoader | None, seed: int) -> Space:
    """The space that `words` span; of two words for one setting the later counts. Raises HydraException."""
    parser = OverridesParser.create(config_loader=loader)
    fixed: dict[str, str] = {}
    swept: dict[str, Swept] = {}
    for override in parser.parse_overrides(list(words)):
        key = override.get_key_element()
        fixed.pop(key, None)
        swept.pop(key, None)
        if override.is_sweep_override():
            swept[key] = _swept(override, seed)
        else:
            assert override.input_line is not None
            fixed[key] = override.input_line
    return Space(fixed=tuple(fixed.values()), swept=tuple(swept.values()))


def _swept(override: Override, seed: int) -> Swept:
    key, typed, value = override.get_key_element(), override.get_value_string(), override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        log = "log" in value.tags
        if not -math.inf < value.start < value.end < math.inf or (log and value.start <= 0):
            raise InputError(
                f"{key}={typed}: an interval goes from a number to a larger one, by size from above 0"
            )
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        return Swept(key=key, typed=typed, low=value.start, high=value.end, log=log, whole=whole)
    if isinstance(value, RangeSweep) and not value.step:
        raise InputError(f"{key}={typed}: a range with a step of 0 has no end")
    shuffles = isinstance(value, ChoiceSweep | RangeSweep) and value.shuffle
    if isinstance(value, ChoiceSweep | RangeSweep):
        value.shuffle = False  # Hydra's own order would be another one each time
    texts = list(dict.fromkeys(itertools.islice(override.sweep_iterator(Transformer.str), MOST_VALUES + 1)))
    if shuffles:
        random.Random(seed).shuffle(texts)
    if not texts:
        raise InputError(f"{key}={typed} has no value")
    if len(texts) > MOST_VALUES:
        raise InputError(f"{key}={typed} has more than {MOST_VALUES:,} values: use interval()")
    return Swept(key=key, typed=typed, values=tuple(str(text) for text in texts))


MOST_VALUES = 100_000  # of one setting
