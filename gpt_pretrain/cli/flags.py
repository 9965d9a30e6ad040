"""Hydra's flags among the words of a command line, which are settings otherwise."""

import re
from collections import deque

from gpt_pretrain.config import known_keys, nearest
from gpt_pretrain.config.habits import instead
from gpt_pretrain.config.words import SWEEP
from gpt_pretrain.errors import InputError

FLAGS = {
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"),
    *("--shell-completion", "-sc", "--info", "-i"),
}
VALUED = {  # by the word that follows
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn"),
    *("--config-dir", "-cd", "--experimental-rerun"),
}
INFO = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}  # what may follow --info


def flags_first(arguments: list[str]) -> list[str]:
    """Hydra's flags before the settings: its parser refuses those on either side of one, and settings are
    added at the end. What stands after -- is another's.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    flags: list[str] = []
    settings: list[str] = []
    words = deque(arguments[:end])
    while words:
        word = words.popleft()
        if not word.startswith("-"):
            settings.append(word)
        elif word not in SWEEP or not SWEEP & set(flags):
            flags.append(word)
            if words and _takes(word, words[0]):
                flags.append(words.popleft())
    return flags + settings + arguments[end:]


def _takes(flag: str, following: str) -> bool:
    """Whether the word after a flag, which may be cut short, is its value."""
    if flag.startswith("--i") or flag == "-i":
        return following in INFO
    return "=" not in flag and any(known.startswith(flag) for known in VALUED)


def check_dashes(arguments: list[str], root: type) -> None:
    """Raise InputError for a setting that is typed as other programs' are: --batch_size=8, --data books."""
    for argument in arguments:
        name, _, value = argument.partition("=")
        if not re.match("--?[A-Za-z]", argument) or any(flag.startswith(name) for flag in FLAGS | VALUED):
            continue
        key, own = name.lstrip("-").replace("-", "_"), known_keys(root)
        hint = instead(key, own) or nearest(key, own)
        if key in own:
            hint = f": {key}={value or '...'}"
        raise InputError(f"{argument}: a setting is typed as key=value, without dashes{hint}")
