"""`--help`: groups, their options and every setting with its comment, read from where they stand.

Hydra's own help takes over a second and does not say what an option means.
"""

import dataclasses
import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

from gpt_pretrain.cli.schemas import config_dir, options
from gpt_pretrain.config import MEMBERS, nearest, sections
from gpt_pretrain.config.comments import comments
from gpt_pretrain.errors import InputError

WIDTH = 110
# As a newcomer meets them: the text, the model, how it learns, how it is watched; the rest after these.
ORDER = ("data", "model", "tokenizer", "optimizer", "schedule", "trainer", "decoding", "logger", "weights")
HIDDEN = {"data": {"name", "source"}}  # what choosing an option sets; of other groups the name


def help_text(description: str, examples: Mapping[str, str], config_name: str, root: type) -> str:
    """What `--help` prints."""
    longest = max(map(len, examples))
    lines = [description, "", *(f"  {typed:<{longest}}  # {said}" for typed, said in examples.items())]
    chosen = _chosen(config_name)
    groups = _groups(root, chosen)
    for group in groups:
        lines += ["", *_group(group, root, chosen.get(group))]
    for section, cls in sections(root):
        if section not in groups:
            lines += ["", section, *_settings(f"{section}.", cls, list(dataclasses.fields(cls)), {})]
    alone = [entry for entry in dataclasses.fields(root) if entry.name not in dict(sections(root))]
    lines += ["", "settings of no group", *_settings("", root, alone, {})]
    lines += [
        "",
        "--help <group> shows what each option of a group sets, --cfg job the settings of a command line,",
        '-m runs a sweep, --version the version. Tab completion: eval "$(python train.py -sc install=bash)"',
    ]
    return "\n".join(lines)


def group_help(group: str, config_name: str, root: type) -> str:
    """What `--help <group>` prints: each option with every setting that it has. Raises InputError."""
    chosen = _chosen(config_name)
    known = _groups(root, chosen)
    if group not in known:
        raise InputError(
            f"--help {group}: no such group{nearest(group, known)} (there are {', '.join(known)})"
        )
    base = dict(sections(root)).get(group)
    lines = []
    for option, said in options(group, root).items():
        lines += [f"{group}={option}{'  (the default)' if option == chosen.get(group) else ''}", f"  {said}"]
        own = _own(group, option)
        if base is None:
            lines += [f"  {line}" for line in yaml.safe_dump(own, sort_keys=False).splitlines()]
        elif base in MEMBERS:
            member = MEMBERS[base][option]
            lines += _settings(f"{group}.", member, list(dataclasses.fields(member)), own)
        else:
            fields = [entry for entry in dataclasses.fields(base) if entry.name in own]
            lines += _settings(f"{group}.", base, fields, own)
        lines.append("")
    if base is not None and base not in MEMBERS:
        lines += [f"all settings of {group}, where no option says otherwise"]
        lines += _settings(f"{group}.", base, list(dataclasses.fields(base)), {})
    return "\n".join(lines).rstrip()


def _groups(root: type, chosen: Mapping[str, str | None]) -> list[str]:
    groups = [group for group in chosen if (config_dir() / group).is_dir()]
    return sorted(groups, key=lambda group: (ORDER.index(group) if group in ORDER else len(ORDER), group))


def _chosen(config_name: str) -> dict[str, str | None]:
    """Each group of a program with the option that it has by default."""
    primary = yaml.safe_load((config_dir() / f"{config_name}.yaml").read_text(encoding="utf-8"))
    entries = [entry for entry in primary["defaults"] if isinstance(entry, dict)]
    return {key: value for entry in entries for key, value in entry.items() if " " not in key}


def _own(group: str, option: str | None) -> dict[str, Any]:
    """What an option's file sets."""
    file = config_dir() / group / f"{option}.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    return {key: value for key, value in (values or {}).items() if key != "defaults"}


def _group(group: str, root: type, chosen: str | None) -> list[str]:
    """A group's options, then its settings as they are by default."""
    lines = [f"{group}=" + (f"{chosen}, or one of:" if chosen else "one of:")]
    for name, said in options(group, root).items():
        lines += _wrapped(f"  {name:<18}", said)
    base = dict(sections(root)).get(group)
    if base is None:
        return lines
    member = MEMBERS.get(base, {}).get(str(chosen), base)
    lines += _settings(f"{group}.", member, list(dataclasses.fields(member)), _own(group, chosen))
    shown = {entry.name for entry in dataclasses.fields(member)}
    for name, other in MEMBERS.get(base, {}).items():
        differing = [
            entry
            for entry in dataclasses.fields(other)
            if entry.name not in shown or _default(entry) != _default(_entry(member, entry.name))
        ]
        if differing := [
            entry for entry in differing if not _is_hidden(f"{group}.", entry) and name != chosen
        ]:
            lines += [
                f"  with {group}={name}:",
                *_settings(f"{group}.", other, differing, _own(group, name), 4),
            ]
    return lines


def _settings(
    prefix: str, cls: type, fields: list[dataclasses.Field], own: Mapping[str, Any], indent: int = 2
) -> list[str]:
    """A line a setting: its value and its comment."""
    said = comments(cls)
    lines = []
    for entry in fields:
        if _is_hidden(prefix, entry):
            continue
        value = _shown(own[entry.name]) if entry.name in own else _default(entry)
        parts = [said[entry.name].replace("None:", "null:")]
        if "null" in entry.metadata:
            parts.append(f"null: {entry.metadata['null']}")
        text = "; ".join(part for part in parts if part)
        if choices := entry.metadata.get("one_of"):
            text += f" ({', '.join(_shown(choice) for choice in choices)})"
        lines += _wrapped(f"{' ' * indent}{prefix}{entry.name}={value}".ljust(40), text)
    return lines


def _wrapped(head: str, text: str) -> list[str]:
    """`head`, a space and the text, whose further lines stand below its first."""
    column = len(head) + 1
    if column > WIDTH - 40:
        return [
            head.rstrip(),
            *textwrap.wrap(text, WIDTH, initial_indent=" " * 41, subsequent_indent=" " * 41),
        ]
    lines = textwrap.wrap(text, WIDTH - column) or [""]
    return [f"{head} {lines[0]}".rstrip(), *(" " * column + line for line in lines[1:])]


def _is_hidden(prefix: str, entry: dataclasses.Field) -> bool:
    return bool(prefix) and entry.name in HIDDEN.get(prefix.rstrip("."), {"name"})


def _entry(cls: type, name: str) -> dataclasses.Field:
    return next(entry for entry in dataclasses.fields(cls) if entry.name == name)


def _default(entry: dataclasses.Field) -> str:
    value = None if entry.default is dataclasses.MISSING else entry.default
    if entry.default_factory is not dataclasses.MISSING:
        value = entry.default_factory()
    return _shown(value)


def _shown(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, list):
        return "[" + ",".join(map(_shown, value)) + "]"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"'{text}'" if " " in text else text
