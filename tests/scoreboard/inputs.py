"""Trial 10: input that cannot be used, typed on the command line."""

import dataclasses
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt_pretrain.config import TrainConfig
from gpt_pretrain.config.border import MEMBERS, sections
from tests.cli.bad_input import CASES, GIVEN, give
from tests.scoreboard.server import SETTINGS, Ended, fresh, run
from tests.scoreboard.table import Case, Profile


def matrix(profile: Profile, change: Callable[[], None] | None = None) -> Iterator[Case]:
    """Every case of the tests; each setting with values of another type or out of range; random ones."""
    cases = list(CASES)
    systematic = [
        ("train", [f"{key}={value}"]) for key in _keys() for value in ("[]", "{a: b}", "nosuch", "1e999")
    ]
    chance = profile.random("inputs")
    cases += systematic
    for program, words in cases if profile.full else chance.sample(cases, 24):
        yield _refused(profile, program, words, change)
    for number in range(profile.of(6, 3000)):
        words = _random_words(chance)
        ended = _typed(profile, "train", [*words, "trainer.max_steps=1", "trainer.eval_batches=1"], change)
        fine = ended.code in (0, 2, 3, 4) and ended.is_clean
        yield Case(f"random {number}: {' '.join(words)}"[:150], fine, f"{ended.code}: {ended.said[-300:]}")


def _refused(profile: Profile, program: str, words: list[str], change: Callable[[], None] | None) -> Case:
    ended = _typed(profile, program, words, change)
    left = sorted(path.name for path in _place(profile).iterdir() if path.name not in GIVEN)
    lines = [line for line in ended.said.splitlines() if line.strip()]
    why = (
        f"exit code {ended.code}: {ended.said[-300:]}"
        if ended.code not in (2, 3)
        else f"a traceback: {ended.said[-300:]}"
        if not ended.is_clean
        else f"left behind: {left}"
        if left
        else f"{len(lines)} lines"
        if not 1 <= len(lines) <= 4
        else "a control character printed"
        if "\x1b" in ended.said
        else ""
    )
    return Case(f"{program} {' '.join(words)}"[:120], not why, why)


def _typed(profile: Profile, program: str, words: list[str], change: Callable[[], None] | None) -> Ended:
    place = fresh(_place(profile))
    give(place)
    keys = {word.partition("=")[0].lstrip("+~") for word in words}
    base = [word for word in SETTINGS if word.partition("=")[0] not in keys] if program == "train" else []
    return run(place, *base, *words, program=program, change=change)


def _place(profile: Profile) -> Path:
    return profile.folder / "typed"


def _keys() -> list[str]:
    """Every numeric setting of training: what takes text or anything is not refused by its type."""
    keys = []
    for section, base in sections(TrainConfig):
        for cls in (base, *MEMBERS.get(base, {}).values()):
            for entry in dataclasses.fields(cls):
                if "int" in str(entry.type) or "float" in str(entry.type):
                    keys.append(f"{section}.{entry.name}")
            if base in MEMBERS:
                break
    return list(dict.fromkeys(key for key in keys if "early" not in key))


def _random_words(chance: random.Random) -> list[str]:
    values = [
        "0",
        "1",
        "2",
        "-1",
        "1e9",
        "null",
        "true",
        "abc",
        "''",
        "[]",
        "nan",
        "0.5",
        "[1,2]",
        "{}",
        "1e-9",
        "3",
    ]
    every = [
        f"{section}.{entry.name}"
        for section, base in sections(TrainConfig)
        for entry in dataclasses.fields(base)
        if f"{section}.{entry.name}"
        not in ("trainer.devices", "data.cache_dir", "data.url", "trainer.compile")
    ]
    return [f"{key}={chance.choice(values)}" for key in chance.sample(every, chance.randrange(1, 4))]


def unguarded(profile: Profile) -> Iterator[Case]:
    """Without the border that makes lines of errors."""
    case = _refused(profile, "train", ["model.n_heads=3"], _no_border)
    yield Case("errors as they come", case.holds, "a traceback")


def _no_border() -> None:
    from gpt_pretrain.errors import InputError, UserFacingError

    InputError.__bases__ = (ValueError,)
    assert UserFacingError
