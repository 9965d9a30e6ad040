"""Going on with a sweep by its folder: its record gives the words of the command line again.

The record may come from elsewhere. Only settings of this program are taken from it, whose values Hydra reads
as plain ones: nothing of Hydra's own, no interpolation, no path in an option's place, no machine's paths.
"""

import os
import re
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob
from hydra.errors import HydraException

from gpt_pretrain.config import TrainConfig, known_keys, sections
from gpt_pretrain.config.paths import expanded
from gpt_pretrain.config.words import SWEEP, typed, value_of, word
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.foreign import read_json
from gpt_pretrain.launch.process import rank
from gpt_pretrain.runs.record import OF_THIS_MACHINE
from gpt_pretrain.sweep.record import SEARCH, is_sweep, newest_sweeps
from gpt_pretrain.sweep.space import is_sweeps_own
from gpt_pretrain.sweep.trial import RECORD

MOST_WORDS = 1000


def asks_for_sweep(arguments: list[str]) -> bool:
    return bool(SWEEP & set(arguments)) or value_of("hydra.mode", arguments) == "MULTIRUN"


def check_asked_for(arguments: list[str]) -> None:
    """Raise InputError where a sweep is described and none is asked for, or one of what trains nothing."""
    if asks_for_sweep(arguments) and (value_of("plan", arguments) or "false").lower() != "false":
        raise InputError("plan=true is of one run: leave -m out; a sweep says at its start what it will do")
    own = next((argument for argument in arguments if is_sweeps_own(argument)), None)
    trial = os.environ.get(RECORD) or rank()  # the first rank, which was asked, hands on what it was told
    if own and not asks_for_sweep(arguments) and not trial:
        raise InputError(f"{own} says how to sweep, and nothing asks for a sweep: add -m, or leave it out")


def without_resume(arguments: list[str]) -> list[str]:
    return [argument for argument in arguments if not argument.lstrip("+").startswith("resume=")]


def sweep_arguments(wanted: str, arguments: list[str]) -> list[str]:
    """The command line of the sweep that `resume=<wanted>` means, what was typed above what is recorded.

    auto: the folder given as hydra.sweep.dir, else the newest below multirun/; where there is none, a new one
    begins. Raises InputError, ArtifactError.
    """
    rest = without_resume(arguments)
    folder = (
        _newest(value_of("hydra.sweep.dir", arguments))
        if wanted == "auto"
        else Path(expanded("resume", wanted))
    )
    if folder is None:
        return rest
    if not is_sweep(folder):
        raise InputError(
            f"{typed('resume', str(folder))} is no sweep: -m goes on with a folder that holds {SEARCH}; "
            "without -m, resume= goes on with one run"
        )
    if "${" in str(folder):
        raise InputError(f"resume={folder}: Hydra takes ${{ for a variable: rename the folder")
    chosen = {argument.lstrip("+~").partition("=")[0] for argument in rest}
    recorded = [text for text in recorded_words(folder) if text.lstrip("+").partition("=")[0] not in chosen]
    rest = [argument for argument in rest if argument not in SWEEP]
    return ["-m", *recorded, *rest, word("hydra.sweep.dir", str(folder))]


def recorded_words(folder: Path) -> list[str]:
    """The words of a sweep's record that this program takes from it. Raises ArtifactError."""
    file = folder / SEARCH
    words = read_json(file).get("words")
    if not isinstance(words, list) or len(words) > MOST_WORDS:
        raise ArtifactError(f"{file} does not hold the words of a sweep")
    taken = []
    for text in words:
        if not isinstance(text, str) or (key := _key(text)) is None:
            raise ArtifactError(
                f"{file} holds {text!r:.80}, which is taken from no record: type the sweep's command again"
            )
        if key not in _LEFT_OUT:
            taken.append(text)
    return taken


_GROUPS = {name for name, _ in sections(TrainConfig)} | {"experiment"}
_LEFT_OUT = {f"{section}.{name}" for section, names in OF_THIS_MACHINE.items() for name in names}
_LEFT_OUT |= {"resume", "debug"}


def _key(text: str) -> str | None:
    """The setting or group that a recorded word is for; None where it may be for something else."""
    try:
        override = OverridesParser.create().parse_override(text)
    except (HydraException, RecursionError):
        return None
    key = override.key_or_group
    if override.is_delete() or override.package is not None or "${" in text:
        return None
    if key in _GROUPS:
        return key if all(map(_is_option, _options(override.value()))) else None
    return key if key in known_keys(TrainConfig) else None


def _options(value: Any) -> list[Any]:
    """What a group's word chooses, or what it is matched with."""
    match value:
        case Glob():
            return [pattern.replace("*", "_") for pattern in (*value.include, *value.exclude)]
        case ChoiceSweep():
            return [getattr(option, "text", option) for option in value.list]
    return [value]


def _is_option(value: Any) -> bool:
    """Whether it is a name, as null is that of none, and no path."""
    return value is None or (isinstance(value, str | int) and bool(re.fullmatch(r"[\w-]+", str(value))))


def _newest(named: str | None) -> Path | None:
    if named:
        return Path(named) if is_sweep(Path(named)) else None
    return next(iter(newest_sweeps()), None)
