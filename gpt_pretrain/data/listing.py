"""Which files a path names, and which of those that lie there are passed over, each with its reason."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gpt_pretrain.data.kinds import PACKED, TEXTS, is_backup, is_hidden, is_text, why_no_text
from gpt_pretrain.errors import InputError

HIDDEN = "hidden"
BACKUP = "an editor's backup"
LINKED_FOLDER = "a link to a folder"
TWICE = "a file taken already"
OTHER_KIND = "of another kind"
SHOWN_SUFFIXES = 4


@dataclass(kw_only=True, slots=True)
class Listing:
    """What was found under a path."""

    files: list[Path]  # in the order of their names
    passed_over: dict[Path, str] = field(default_factory=dict)  # with the reason

    def summary(self) -> str | None:
        """One line: how many were taken, and what was not. None for a file given by itself, or none."""
        if len(self.files) < 2 and not self.passed_over:
            return None
        taken = f"{len(self.files):,} file{'s' if len(self.files) > 1 else ''} taken"
        reasons = Counter(reason.partition(":")[0] for reason in self.passed_over.values())
        over = [f"{count:,} {reason}{self._suffixes(reason)}" for reason, count in reasons.most_common()]
        return f"{taken}; passed over: {', '.join(over)}" if over else taken

    def _suffixes(self, reason: str) -> str:
        if reason != OTHER_KIND:
            return ""
        names = Counter(p.suffix or p.name for p, why in self.passed_over.items() if why.startswith(reason))
        shown = [name for name, _ in names.most_common(SHOWN_SUFFIXES)]
        return f" ({' '.join(shown)}{' ...' if len(names) > len(shown) else ''})"


def find_files(
    path: str, pattern: str | None, suffixes: tuple[str, ...] = TEXTS, key: str = "data.path"
) -> Listing:
    """The files that `path` names: itself, those of the folder, or those that match it as a glob.

    A file given by itself is taken whatever its name. In a folder or a glob, hidden files and folders and
    editors' backups are passed over, links to folders too (they may lead round in a loop), and a file that is
    reached twice counts once. Raises InputError where there is none, or only what is no text.
    """
    place = Path(path)
    if place.is_dir():
        listing = _chosen(_walked(place, pattern), suffixes if pattern is None else None, suffixes)
        if not listing.files:
            raise InputError(_nothing_in(path, pattern, suffixes, listing, key))
        return listing
    if place.is_file():
        if suffixes == TEXTS and (why := why_no_text(place)):
            raise InputError(f"{key}={path} {why}")
        return Listing(files=[place])
    listing = _chosen(_matched(path), None, suffixes)
    if not listing.files and listing.passed_over:
        raise InputError(f"{key}={path}: {_first(listing)}")
    if not listing.files:
        raise InputError(f"{key}={path}: no such file or folder, and no file matches it as a pattern")
    return listing


def _walked(folder: Path, pattern: str | None) -> Iterator[tuple[Path, str | None]]:
    """All that lies in a folder, what is passed over with the reason."""
    wanted = None if pattern is None else _matching(folder, pattern)
    takes_hidden = any(part.startswith(".") for part in Path(pattern or "").parts)
    for place, folders, names in os.walk(folder, onerror=_refuse):
        for name in list(folders):
            inside = Path(place, name)
            if is_hidden(inside) and not takes_hidden:
                folders.remove(name)
                yield inside, HIDDEN
            elif inside.is_symlink():
                yield inside, LINKED_FOLDER
        for file in (Path(place, name) for name in names):
            if is_hidden(file) and not takes_hidden:
                yield file, HIDDEN
            elif wanted is not None and file not in wanted:
                yield file, f"not named {pattern}"
            else:
                yield file, None


def _matching(folder: Path, pattern: str) -> set[Path]:
    try:
        return set(folder.rglob(pattern))
    except (NotImplementedError, ValueError) as error:
        raise InputError(
            f"data.pattern={pattern} is no pattern of names in a folder, as *.txt is: {error}"
        ) from error


def _matched(path: str) -> Iterator[tuple[Path, str | None]]:
    """What matches a glob; glob itself leaves out what is hidden unless the pattern says the dot."""
    for name in glob.glob(path, recursive=True):
        file = Path(name)
        if not file.is_dir():
            yield file, None
        elif "**" not in path:
            yield file, "a folder: its files match as folder/*.txt"


def _chosen(
    found: Iterable[tuple[Path, str | None]], only: tuple[str, ...] | None, suffixes: tuple[str, ...]
) -> Listing:
    """Take what is text (or ends in `only`), each file once: by its first name."""
    listing = Listing(files=[])
    # by text, so that of a loop of links the shortest way comes first
    entries = sorted(found, key=lambda entry: str(entry[0]))
    names = {str(file).lower() for file, reason in entries if reason is None}
    once: dict[Path, Path] = {}
    for file, reason in entries:
        reason = reason or _reason(file, only, suffixes, names)
        if reason is None and (first := once.setdefault(file.resolve(), file)) != file:
            reason = f"{TWICE}: {first}"
        if reason is None:
            listing.files.append(file)
        else:
            listing.passed_over[file] = reason
    listing.files.sort()
    return listing


def _reason(
    file: Path, only: tuple[str, ...] | None, suffixes: tuple[str, ...], names: set[str]
) -> str | None:
    if is_backup(file):
        return BACKUP
    if not file.is_file():
        return "a link to nothing" if file.is_symlink() else "no plain file"
    if suffixes == TEXTS and (why := why_no_text(file)):
        return f"{OTHER_KIND}: {why}"
    if only is not None and not file.name.lower().endswith(only):
        return OTHER_KIND
    if file.suffix.lower() in PACKED and is_text(file) and str(file.with_suffix("")).lower() in names:
        return "the packed copy of a file taken already"
    return None


def _nothing_in(path: str, pattern: str | None, suffixes: tuple[str, ...], listing: Listing, key: str) -> str:
    wanted = pattern or " ".join(s for s in suffixes if s.count(".") == 1)
    message = f"{key}={path} holds no file named {wanted}: set data.pattern"
    summary = listing.summary()
    if pattern is not None and any(reason.startswith(OTHER_KIND) for reason in listing.passed_over.values()):
        return f"{key}={path}: {_first(listing)}"
    return f"{message}\n{summary.partition('; ')[2]}" if summary and listing.passed_over else message


def _first(listing: Listing) -> str:
    """The first that is passed over for what it holds, else the first, in words."""
    passed = listing.passed_over.items()
    file, reason = next((entry for entry in passed if entry[1].startswith(OTHER_KIND)), next(iter(passed)))
    return f"{file} " + (reason.partition(": ")[2] if ": " in reason else f"is {reason}")


def _refuse(error: OSError) -> None:
    raise InputError(f"data.path: {error.filename} cannot be read: {error.strerror}") from error
