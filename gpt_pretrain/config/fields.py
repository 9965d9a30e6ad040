"""Settings that carry their range: declared where the setting is, checked in one place."""

import dataclasses
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import field
from difflib import get_close_matches
from typing import Any

from gpt_pretrain.errors import InputError


def one_of(*choices: str, default: str | None = None) -> Any:
    """A text setting with a fixed set of values; the first is the default."""
    return field(default=default or choices[0], metadata={"one_of": choices})


def switch() -> Any:
    """On, off or where it pays: `switched` makes text of the true and false that YAML knows."""
    return one_of("auto", "true", "false")


def switched(config: Any) -> None:
    """Let the switches of a section hold text, whatever was typed."""
    for entry in dataclasses.fields(config):
        if entry.metadata.get("one_of") == ("auto", "true", "false"):
            setattr(config, entry.name, str(getattr(config, entry.name)).lower())


def path_to(*, written: bool = False, default: str | None = None) -> Any:
    """A file or folder, None unless given; `written`: one that this program may make."""
    return field(default=default, metadata={"path": "written" if written else "read"})


def number(
    default: float | None = dataclasses.MISSING,  # type: ignore[assignment]
    null: str | None = None,
    **bounds: float,
) -> Any:
    """A number with bounds: `at_least`, `at_most`, `above`, `below`. None, where allowed, is not checked.

    `null` says what None means, to who tries other programs' words for it: auto, -1, 0.
    """
    return field(default=default, metadata={**bounds, **({"null": null} if null else {})})


def null_means(key: str, metadata: Mapping[str, Any]) -> str:
    """`; key=null means ...`, where the setting says so."""
    return f"; {key}=null means {metadata['null']}" if "null" in metadata else ""


LARGEST = 2**63  # what torch and numpy count with ends here

_BOUNDS = {
    "at_least": (lambda value, bound: value >= bound, "at least"),
    "at_most": (lambda value, bound: value <= bound, "at most"),
    "above": (lambda value, bound: value > bound, "above"),
    "below": (lambda value, bound: value < bound, "below"),
}


def check_ranges(config: Any, prefix: str) -> None:
    """Raise InputError for the first setting outside its choices or bounds; `prefix` names its section."""
    for entry in dataclasses.fields(config):
        key, value = prefix + entry.name, getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            check_ranges(value, f"{key}.")
            continue
        choices = entry.metadata.get("one_of")
        if choices and value not in choices:
            raise InputError(
                f"{key}={value} is none of {', '.join(map(str, choices))}"
                f"{nearest(str(value), [str(choice) for choice in choices])}"
            )
        bounds = {name: bound for name, bound in entry.metadata.items() if name in _BOUNDS}
        if not bounds or value is None:
            continue
        if isinstance(value, int) and abs(value) >= LARGEST:
            raise InputError(f"{key}={value!s:.40} is out of range: its size must be less than 2^63")
        if not abs(value) < math.inf or not all(
            _BOUNDS[name][0](value, bound) for name, bound in bounds.items()
        ):
            wanted = " and ".join(f"{_BOUNDS[name][1]} {bound:g}" for name, bound in bounds.items())
            raise InputError(
                f"{key}={value} is out of range: it must be {wanted}{null_means(key, entry.metadata)}"
            )


def check_unicode(config: Any, prefix: str = "") -> None:
    """Raise InputError for a text that no record can hold: bytes of a name that are no UTF-8."""
    for entry in dataclasses.fields(config):
        key, value = prefix + entry.name, getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            check_unicode(value, f"{key}.")
        elif re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False)):  # str() hides it in a list
            raise InputError(
                f"{key}={value} is not UTF-8, which the run's records are: rename it, or, where the shell's "
                "locale is at fault, set LC_ALL=C.UTF-8"
            )


def check_processes(key: str, value: int | None) -> None:
    """Raise InputError for processes far beyond this machine's cores; a few more are fine."""
    cores = os.cpu_count() or 1
    most = max(16, 4 * cores)
    if value is not None and value > most:
        raise InputError(f"{key}={value}: this machine has {cores} processors: set {most} or less")


def nearest(word: str, known: list[str]) -> str:
    """`, did you mean ...?` with the known word most like `word`, or nothing."""
    leaf = word.rsplit(".", 1)[-1]
    alike = {re.sub("[_-]", "", key.lower()): key for key in known}.get(re.sub("[_-]", "", word.lower()))
    close = (
        [alike]
        if alike
        else get_close_matches(word, known, n=1, cutoff=0.75)
        or [key for key in known if sorted(key) == sorted(word)]  # letters swapped
        or [key for key in known if get_close_matches(leaf, [key.rsplit(".", 1)[-1]], cutoff=0.8)]
        or [key for key in known if len(word) > 1 and key.startswith(f"{word}-")]  # of a precision: 16, bf16
    )
    return f", did you mean {close[0]}?" if close else ""
