"""Whether a folder holds this search: what is written of it, and what of it may differ when it goes on."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gpt_pretrain.config.border import typed_section
from gpt_pretrain.config.sweep import SweepConfig
from gpt_pretrain.config.words import text_of, typed
from gpt_pretrain.errors import ArtifactError, InputError, UserFacingError
from gpt_pretrain.runs.record import OF_THIS_MACHINE, flatten
from gpt_pretrain.sweep.check import Sense
from gpt_pretrain.sweep.record import SEARCH, SweepRecord
from gpt_pretrain.sweep.refusals import refusing
from gpt_pretrain.sweep.space import Space, is_sweeps_own, read_space

FORMAT = 1
_DECIDING = ("strategy", "seed", "prune", "prune_at", "reduction")  # of the sweep's own settings


@dataclass(kw_only=True, slots=True, frozen=True)
class Search:
    """What a command line asks for."""

    space: Space
    config: SweepConfig
    version: str  # of the code
    described: dict[str, Any]  # as search.json holds it


def read_search(sense: Sense, params: Mapping[str, Any], arguments: list[str], version: str) -> Search:
    """The search of `arguments`, above `params` and a preset's words. Raises UserFacingError."""
    with refusing():
        words = [*(f"{key}={text_of(values)}" for key, values in params.items()), *arguments]
        given = read_space(words, sense.loader, 0)
        swept = [entry.key for entry in given.swept if is_sweeps_own(f"{entry.key}=")]
        if swept:
            raise InputError(f"{swept[0]} says how to sweep, and cannot be swept itself: give it one value")
        how = [word for word in given.fixed if is_sweeps_own(word) or word.startswith("experiment=")]
        config = typed_section(sense.compose(how), "sweep", SweepConfig)
        words = [*(f"{key}={text_of(values)}" for key, values in (config.params or {}).items()), *words]
        space = read_space(words, sense.loader, config.seed)
    try:
        base = sense.compose(space.fixed)
    except UserFacingError:  # they may need what is swept; what is wrong shows at each point
        base = OmegaConf.create({})
    return Search(
        space=space, config=config, version=version, described=_describe(space, config, base, version)
    )


def _describe(space: Space, config: SweepConfig, settings: DictConfig, version: str) -> dict[str, Any]:
    """`settings` is what Hydra composes of the words that all trials share."""
    described = {
        "format": FORMAT,
        "version": version,
        "words": [*space.fixed, *(f"{entry.key}={entry.typed}" for entry in space.swept)],
        "swept": {entry.key: entry.typed for entry in space.swept},
        "sweep": {name: getattr(config, name) for name in _DECIDING},
        "settings": _settings(settings, {entry.key for entry in space.swept}),
    }
    return dict(json.loads(json.dumps(described)))  # which has texts for keys, as what it is compared with


def _settings(settings: Any, swept: set[str]) -> dict[str, Any]:
    """What the shared words come to, so that a settings file that was edited meanwhile shows too."""
    plain = OmegaConf.to_container(settings, resolve=False)
    assert isinstance(plain, dict)
    sections_ = {str(key): value for key, value in plain.items() if key != "sweep"}
    left_out = {f"{section}.{name}" for section, names in OF_THIS_MACHINE.items() for name in names}
    left_out |= {"resume", "debug"}
    within = tuple(f"{key}." for key in swept)  # a swept group's settings come with its option
    kept = {key: value for key, value in flatten(sections_).items() if key not in left_out | swept}
    return {key: value for key, value in kept.items() if not key.startswith(within)}


def differences(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """What a recorded search has otherwise than this one, a line each. Raises ArtifactError."""
    parts = ("swept", "sweep", "settings")
    if not all(isinstance(then.get(part), dict) for part in parts):
        raise ArtifactError(f"{SEARCH} does not hold a search")
    lines = []
    for part in parts:
        prefix = "sweep." if part == "sweep" else ""
        for key in dict.fromkeys([*now[part], *then[part]]):
            here, there = now[part].get(key, _NONE), then[part].get(key, _NONE)
            if here != there:
                lines.append(f"{prefix}{key} was {_shown(there)}, is {_shown(here)}")
    return lines


def check_same(record: SweepRecord, search: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError that names the first difference where the folder holds another search."""
    lines = differences(search, record.search())
    if lines:
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise InputError(
            f"{folder} holds another sweep: {lines[0]}{more}\n"
            f"give another hydra.sweep.dir, or go on with that one: -m {typed('resume', str(folder))}"
        )


def in_recorded_order(search: Search, record: SweepRecord) -> Search:
    """The same search with its settings in the order in which the record, if there is one, has numbered the
    points: typed in another order they are the same.
    """
    if not record.exists():
        return search
    order = list(record.search()["swept"])
    swept = tuple(sorted(search.space.swept, key=lambda entry: order.index(entry.key)))
    return dataclasses.replace(search, space=dataclasses.replace(search.space, swept=swept))


_NONE = object()


def _shown(value: Any) -> str:
    if value is _NONE:
        return "not swept or set"
    text = text_of(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
