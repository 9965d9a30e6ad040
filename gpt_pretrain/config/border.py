"""From what Hydra composed to typed settings, and what is said where it does not fit."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import Any, TypeVar, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpt_pretrain.config import optimizer, schedule
from gpt_pretrain.config.fields import check_ranges, nearest, null_means
from gpt_pretrain.config.habits import instead
from gpt_pretrain.config.optimizer import OptimizerConfig
from gpt_pretrain.config.paths import expand_paths
from gpt_pretrain.config.schedule import ScheduleConfig
from gpt_pretrain.config.words import literal
from gpt_pretrain.errors import InputError


def _members(module: ModuleType, base: type) -> dict[str, type]:
    """The subclasses of `base` that stand in `module`, by the default of their `name`."""
    found = {}
    for cls in vars(module).values():
        if isinstance(cls, type) and issubclass(cls, base) and cls is not base:
            fields: dict[str, dataclasses.Field] = cls.__dataclass_fields__  # type: ignore[attr-defined]
            found[str(fields["name"].default)] = cls
    return found


# The members of a section whose group has classes of its own; their `name` tells them apart.
MEMBERS: dict[type, dict[str, type]] = {
    OptimizerConfig: _members(optimizer, OptimizerConfig),
    ScheduleConfig: _members(schedule, ScheduleConfig),
}

C = TypeVar("C")


def to_config(settings: DictConfig | Mapping[str, Any], root: type[C]) -> C:
    """Settings as an instance of `root`, typed and in range. Raises InputError that names the key.

    What Hydra composed is whole, its interpolations are resolved. A plain mapping is data: nothing in it is
    resolved, and what it lacks has its default.
    """
    config = to_typed(settings, root)
    check_config(config)
    return config


def check_config(config: object) -> None:
    """Raise InputError for a value out of its range, or for values that contradict each other."""
    check_ranges(config, "")
    config.check()  # type: ignore[attr-defined]


def to_typed(settings: DictConfig | Mapping[str, Any], root: type[C]) -> C:
    """`to_config` before values are compared with their ranges and with each other."""
    try:
        plain = _plain(settings)
        for section in {name for name, _ in sections(root)} & plain.keys():
            if not isinstance(plain[section], Mapping):
                raise InputError(f"{section}={plain[section]!r:.40} is no group of settings")
        members = [_member(section, base, plain, settings) for section, base in sections(root)]
        schema = copy.deepcopy(_schema((root, *members)))
        merged = OmegaConf.unsafe_merge(schema, escaped(plain))  # both are ours alone
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise InputError(say_what_is_wrong(error, root)) from error
    if isinstance(settings, DictConfig):
        for key in _missing(OmegaConf.to_container(merged), plain):
            raise InputError(f"{key} was taken out of the settings: give it a value instead of ~{key}")
    assert isinstance(config, root)
    if isinstance(settings, DictConfig):  # a record is data, and holds no ~ that we wrote
        expand_paths(config)
    return config


def _member(
    section: str, base: type, plain: Mapping[str, Any], settings: DictConfig | Mapping[str, Any]
) -> type:
    """The class of a section: `base`, or the one of its classes that the section's name says."""
    if base not in MEMBERS:
        return base
    name = plain.get(section, {}).get("name")
    member = MEMBERS[base].get(str(name))
    if member is None:
        raise InputError(f"{section}.name={name} is none of {', '.join(MEMBERS[base])}")
    composed = OmegaConf.get_type(settings, section) if isinstance(settings, DictConfig) else dict
    if composed not in (member, dict):
        raise InputError(f"{section}.name={name} cannot be set by itself: choose {section}={name}")
    return member


@cache  # a sweep types the settings of each trial
def _schema(classes: tuple[type, ...]) -> DictConfig:
    """Of a root and its sections' classes."""
    root, *members = classes
    schema = OmegaConf.structured(root)
    for (section, _), member in zip(sections(root), members, strict=True):
        schema[section] = member
    return schema


def typed_section(settings: DictConfig, section: str, cls: type[C]) -> C:
    """One section of what Hydra composed, typed and in range, whatever the others hold. Raises InputError."""
    try:
        plain = OmegaConf.to_container(settings[section], resolve=True)
        typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), escaped(plain)))
    except OmegaConfBaseException as error:
        raise InputError(say_what_is_wrong(error, cls)) from error
    assert isinstance(typed, cls)
    check_ranges(typed, f"{section}.")
    typed.check()  # type: ignore[attr-defined]
    return typed


def say_what_is_wrong(error: OmegaConfBaseException, root: type) -> str:
    """One line for a value of the wrong type, an unknown key, or a key without a value."""
    key = getattr(error, "full_key", None) or ""
    message = (error.msg or str(error)).splitlines()[0]
    if " not in " in message or "not a valid" in message or "is not in struct" in message:
        known = known_keys(root)
        return f"{key}: no such setting{instead(key, known) or nearest(key, known)}"
    if "Missing mandatory value" in message:
        return f"{key} has no value: set {key}=..."
    if "is not Optional" in message:
        return f"{key}=null has no meaning: give it a value, or leave it out"
    return f"{key}: {message}{_what_null_means(key, root)}"


def _what_null_means(key: str, root: type) -> str:
    section, _, name = key.rpartition(".")
    cls = dict(sections(root)).get(section) if section else root
    entries = {entry.name: entry for entry in dataclasses.fields(cls)} if cls else {}
    return null_means(key, entries[name].metadata) if name in entries else ""


def known_keys(root: type) -> list[str]:
    """Every dotted key that `root` and the members of its sections have."""
    keys = [entry.name for entry in dataclasses.fields(root)]
    for section, base in sections(root):
        for member in [base, *MEMBERS.get(base, {}).values()]:
            keys += [f"{section}.{entry.name}" for entry in dataclasses.fields(member)]
    return list(dict.fromkeys(keys))


def sections(root: type) -> Iterator[tuple[str, type]]:
    """Name and class of each section of `root`."""
    for name, hint in get_type_hints(root).items():
        if dataclasses.is_dataclass(hint):
            yield name, hint  # type: ignore[misc]


def to_plain(config: object) -> dict[str, Any]:
    """A settings object as nested dictionaries of plain values: what YAML and JSON can hold."""
    return dataclasses.asdict(config)  # type: ignore[call-overload]


def as_typed(plain: Mapping[str, Any], cls: type) -> DictConfig:
    """Plain values as a node for Hydra to compose with, typed as `cls`."""
    typed = OmegaConf.merge(OmegaConf.structured(cls), escaped(plain))
    assert isinstance(typed, DictConfig)
    return typed


def escaped(plain: Any) -> Any:
    """Plain values in which OmegaConf finds no interpolation."""
    if isinstance(plain, Mapping):
        return {key: escaped(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [escaped(value) for value in plain]
    return literal(plain) if isinstance(plain, str) else plain


def _plain(settings: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(settings, DictConfig):
        return dict(settings)
    plain = OmegaConf.to_container(settings, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]


def _missing(tree: Any, given: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of `tree` that `given` lacks."""
    for key, value in tree.items():
        if not isinstance(given, dict) or key not in given:
            yield prefix + key
        elif isinstance(value, dict):
            yield from _missing(value, given[key], f"{prefix}{key}.")
