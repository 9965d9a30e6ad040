"""`--help`: every group with its options, every setting with its default, read from where they stand.

Hydra's own help takes over a second and does not say what an option means.
"""

import dataclasses
from pathlib import Path

from gpt_pretrain.cli.schemas import options
from gpt_pretrain.config import MEMBERS, sections


def help_text(description: str, example: str, config_name: str, root: type, conf: Path) -> str:
    """What `--help` prints."""
    lines = [description, "", f"  {example}", ""]
    primary = (conf / f"{config_name}.yaml").read_text(encoding="utf-8")
    for folder in sorted(path for path in conf.iterdir() if path.is_dir() and f"- {path.name}:" in primary):
        lines.append(f"{folder.name}=")
        lines += [f"  {name:<17} {said}" for name, said in options(folder.name, root).items()]
    lines += ["", "Settings and their defaults, before a group's option changes them:"]
    owners = dict(sections(root))
    for entry in dataclasses.fields(root):
        if entry.name not in owners:
            lines.append(f"  {entry.name}={_default(entry)}")
    for section, base in owners.items():
        lines.append(f"  {_settings(section, base)}")
        for name, member in MEMBERS.get(base, {}).items():
            own = _settings(section, member, leave_out={entry.name for entry in dataclasses.fields(base)})
            lines += [f"    with {section}={name}: {own}"] * bool(own)
    lines += ["", "--cfg job prints the settings of a command line without running it; -m runs a sweep."]
    return "\n".join(lines)


def _settings(section: str, cls: type, leave_out: set[str] | None = None) -> str:
    hidden = {"name", "source" if section == "data" else ""} | (leave_out or set())
    return "  ".join(
        f"{section}.{entry.name}={_default(entry)}"
        for entry in dataclasses.fields(cls)
        if entry.name not in hidden
    )


def _default(entry: dataclasses.Field) -> str:
    value = None if entry.default is dataclasses.MISSING else entry.default
    if entry.default_factory is not dataclasses.MISSING:
        value = entry.default_factory()
        value = ",".join(value) if isinstance(value, list) and value else value
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"'{text}'" if " " in text else text
