"""Tab completion: groups, options, settings, their values and paths.

Hydra's own knows no comma and few paths, and composes all settings at every key.
"""

import dataclasses
import glob
import os
from collections.abc import Iterator, Mapping
from typing import Any

from gpt_pretrain.cli.schemas import config_dir, options
from gpt_pretrain.config import known_keys, sections

FLAGS = ("--help", "--version", "--cfg", "-m", "--multirun")
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")  # Hydra's own settings that are typed often

# The shell's part: what was typed up to the cursor, and which program it is for. It gives back what readline
# wants replaced: the part behind the last `=` or `:`, where these part words.
SCRIPT = r"""
_gpt_pretrain() {
    local line=${COMP_LINE:0:COMP_POINT} word="" IFS=$' \t\n'
    local -a words program
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] || word=${words[-1]}
    case ${words[0]##*/} in
        python*)
            program=("${words[@]:0:2}")
            [[ ${words[1]} != -m ]] || program=("${words[@]:0:3}")
            ;;
        *) program=("${words[0]}") ;;
    esac
    case ${program[-1]} in
        *train.py | *generate.py | gpt_pretrain.* | *gpt-pretrain-*) ;;
        *) return ;;
    esac
    [[ ${#words[@]} -gt ${#program[@]} || -z $word ]] || return
    COMPREPLY=()
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(
        COMP_WORD=$word "${program[@]}" -sc query=bash 2> /dev/null
    )
    local mark
    for mark in = :; do
        if [[ $word == *$mark* && $COMP_WORDBREAKS == *$mark* ]]; then
            COMPREPLY=("${COMPREPLY[@]#"${word%"$mark"*}$mark"}")
        fi
    done
}
complete -o nospace -o default -F _gpt_pretrain python python3 gpt-pretrain-train gpt-pretrain-generate
"""


def completion(
    arguments: list[str], environment: Mapping[str, str], config_name: str, root: type
) -> str | None:
    """What `-sc install=bash` and `-sc query=bash` print; None for any other command line."""
    if arguments[:1] not in (["-sc"], ["--shell-completion"]) or len(arguments) < 2:
        return None
    if arguments[1].startswith("query="):
        return "\n".join(sorted(candidates(environment.get("COMP_WORD", ""), config_name, root)))
    if arguments[1].startswith("uninstall="):
        return "complete -r python python3 gpt-pretrain-train gpt-pretrain-generate; unset -f _gpt_pretrain"
    return SCRIPT if arguments[1] == "install=bash" else None


def candidates(word: str, config_name: str, root: type) -> Iterator[str]:
    """What `word` may become; a key keeps its `=`, so that its value is typed next."""
    key, equals, value = word.partition("=")
    if not equals:
        names = [f"{name}=" for name in (*_groups(config_name), *_keys(root), *FOLDERS)]
        yield from (name for name in (*names, *FLAGS) if name.startswith(word))
        return
    entry = _entry(key, root)
    if key in FOLDERS or (entry is not None and entry.metadata.get("path")):
        for path in glob.iglob(glob.escape(value) + "*"):
            yield f"{key}={path}{'/' if os.path.isdir(path) else ''}"
        return
    before, comma, begun = value.rpartition(",")  # of a sweep's values the last is being typed
    for choice in _values(key, config_name, root):
        if choice.startswith(begun) and choice not in before.split(","):
            yield f"{key}={before}{comma}{choice}"


def _groups(config_name: str) -> list[str]:
    primary = (config_dir() / f"{config_name}.yaml").read_text(encoding="utf-8")
    return [path.name for path in config_dir().iterdir() if path.is_dir() and f"- {path.name}:" in primary]


def _keys(root: type) -> list[str]:
    groups = {name for name, _ in sections(root)}
    return [key for key in known_keys(root) if key not in groups and key.rpartition(".")[2] != "name"]


def _values(key: str, config_name: str, root: type) -> list[str]:
    if key in _groups(config_name):
        return list(options(key, root))
    entry = _entry(key, root)
    if entry is None:
        return []
    choices = (True, False) if entry.type in (bool, "bool") else entry.metadata.get("one_of", ())
    return [str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in choices]


def _entry(key: str, root: type) -> dataclasses.Field | None:
    """The declaration of a setting; None where there is none of that name."""
    section, _, name = key.rpartition(".")
    cls: Any = dict(sections(root)).get(section) if section else root
    return next((entry for entry in dataclasses.fields(cls) if entry.name == name), None) if cls else None
