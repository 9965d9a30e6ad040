"""Files of the same content under other names: text that is held out must not be trained on."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from gpt_pretrain.errors import InputError

Digests = Mapping[Path, str]  # of each file's content
EMPTY = hashlib.sha256().hexdigest()[:32]  # as fingerprints.py has it: two empty files share no text


def check_held_out(val_path: str, held_out: Digests, trained: Digests) -> None:
    """Raise InputError where validation text holds a file that is trained on, or a copy of one."""
    if pair := _shared(held_out, trained):
        file, original = pair
        copy = "" if file.resolve() == original.resolve() else f", a copy of {original}"
        raise InputError(
            f"data.val_path={val_path} holds {file}{copy}, which is trained on: give another, or none "
            "to have data.val_fraction of the text left out of training"
        )


def check_apart(sources: Mapping[str, Digests]) -> None:
    """Raise InputError where two sources have a file or copies of it: each would hold out another part."""
    names = list(sources)
    for number, name in enumerate(names):
        for owner in names[:number]:
            if pair := _shared(sources[name], sources[owner]):
                file, original = pair
                is_same = file.resolve() == original.resolve()
                what = (
                    f"{file} is in {owner} and in {name}"
                    if is_same
                    else f"{file} of {name} is a copy of {original} in {owner}"
                )
                raise InputError(
                    f"data.sources: {what}: what one of them holds out for "
                    "validation the other would train on\ngive it in one only, or set data.split=documents"
                )


def said_of_copies(digests: Digests) -> str | None:
    """What is said where one source holds the same content twice."""
    first: dict[str, Path] = {}
    copies = [
        (file, original)
        for file, digest in digests.items()
        if digest != EMPTY and (original := first.setdefault(digest, file)) != file
    ]
    if not copies:
        return None
    file, original = copies[0]
    return (
        f"{len(copies):,} file{'s are copies' if len(copies) > 1 else ' is a copy'} of another, as {file} of "
        f"{original}: read twice, and on both sides of the split perhaps, unless data.split=documents"
    )


def _shared(ours: Digests, theirs: Digests) -> tuple[Path, Path] | None:
    """The first of our files that is one of theirs, by its place or by its content, with that one."""
    places = {file.resolve(): file for file in theirs}
    contents = {digest: file for file, digest in theirs.items() if digest != EMPTY}
    for file, digest in ours.items():
        original = places.get(file.resolve()) or contents.get(digest)
        if original is not None:
            return file, original
    return None
