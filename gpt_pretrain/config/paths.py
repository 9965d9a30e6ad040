"""Settings that name a file or folder: `~` is a home folder as in a shell, and Windows' rules for names.

A shell expands `~` at the beginning of a word only, so `data.path=~/books` reaches us as it was typed.
"""

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import PureWindowsPath
from typing import Any, get_type_hints

from gpt_pretrain.errors import InputError

# Devices, whatever suffix follows: a file nul.txt is written to nowhere.
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in "123456789¹²³")}


def expand_paths(config: Any, prefix: str = "") -> None:
    """Put the home folder in the place of `~` in every setting that is declared as `path_to`.

    Raises InputError for a user without a home folder, and on Windows for a name that no file can have.
    """
    for entry in dataclasses.fields(config):
        key, value = prefix + entry.name, getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            expand_paths(value, f"{key}.")
        elif "path" not in entry.metadata:
            continue
        elif isinstance(value, dict | list):
            pairs = value.items() if isinstance(value, dict) else map(_pair, value)
            found: dict[str, Any] = {}
            for path, of in pairs:
                full = expanded(key, str(path))
                if full in found:
                    raise InputError(f"{key} names {full} twice: give it one weight")
                found[full] = of
            setattr(config, entry.name, found)
        elif isinstance(value, str):
            if entry.metadata["path"] == "written" and os.name == "nt":
                check_name(key, value)
            setattr(config, entry.name, expanded(key, value))


def expanded(key: str, path: str) -> str:
    """`path` with the home folder in the place of a leading `~` or `~user`; `key` says where it was given."""
    full = os.path.expanduser(path)
    if not path.startswith("~") or full != path:
        return full
    user = re.split(r"[/\\]", path[1:])[0]
    whose = f"this machine knows no user {user}" if user else "this user has no home folder"
    literally = f", or {here(path)} for what has this name here" if user else ""
    raise InputError(f"{key}={path}: {whose}: give the whole path{literally}")


def path_keys(root: type) -> set[str]:
    """The settings of `root` that are declared as `path_to`, those of its sections too."""
    found = set()
    for name, hint in get_type_hints(root).items():
        if dataclasses.is_dataclass(hint):
            found |= {f"{name}.{key}" for key in path_keys(hint)}  # type: ignore[arg-type]
    return found | {entry.name for entry in dataclasses.fields(root) if "path" in entry.metadata}


def _pair(text: object) -> tuple[str, Any]:
    """`path:weight`; a weight that is no number is refused where the others are checked."""
    path, _, weight = str(text).rpartition(":")
    try:
        return path, float(weight)
    except ValueError:
        return path or str(text), weight if path else None


def here(path: str) -> str:
    """A path of ours as a setting takes it: what is named `~` here is nobody's home folder, and what is
    named `???` no value that is missing.
    """
    return f"./{path}" if path.startswith("~") or path == "???" else path


def check_name(key: str, path: str) -> None:
    """Raise InputError where Windows can have no such file or folder."""
    for problem in unfit_for_windows(path):
        raise InputError(f"{key}={path}: {problem}, as Windows allows in no name: give another one")


def unfit_for_windows(path: str) -> Iterator[str]:
    """What Windows does not have in names, of each name on the way: it would write elsewhere, or fail."""
    whole = PureWindowsPath(path)
    for name in whole.parts[1 if whole.anchor else 0 :]:
        if forbidden := re.search(r'[<>:"|?*\x00-\x1f]', name):
            yield f"{name!r} holds {forbidden[0]!r}"
        elif name.split(".")[0].rstrip().upper() in _DEVICES:
            yield f"{name!r} is the name of a device"
        elif name not in (".", "..") and name[-1] in ". ":
            yield f"{name!r} ends in a {'space' if name[-1] == ' ' else 'dot'}"
