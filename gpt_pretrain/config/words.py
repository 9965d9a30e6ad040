"""How a setting is typed: for Hydra's grammar, and for the shell before it."""

import os
import re
import shlex
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpt_pretrain.config.paths import here

SWEEP = {"-m", "--multirun"}  # what asks for several runs on a command line
MAPPING = "data.sources"  # of paths to weights
_UNQUOTED = re.compile(r"""\A(['"])(.*)\1(:[^:]*)\Z""")  # 'a path in quotes':weight
_BETWEEN = re.compile(r"(?<=[\]}])\s*,\s*(?=[\[{])")  # mappings of a sweep: within one a weight ends a pair
_PLAIN = re.compile(r"[A-Za-z0-9_./+-]*[A-Za-z_./][A-Za-z0-9_./+-]*")  # to Hydra and to every shell itself


def literal(text: str) -> str:
    """`text` as OmegaConf reads it back unchanged: `${` begins no interpolation in it."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def quoted(text: str) -> str:
    """`text` in the quotes of Hydra's grammar, whatever it holds."""
    text = re.sub(r"(\\*)'", r"\1\1\\'", literal(text))
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", text) + "'"


def word(key: str, value: str) -> str:
    """`key=value` as a word of the command line that Hydra reads."""
    return f"{key}={quoted(value)}"


def typed(key: str, path: str, *, windows: bool = os.name == "nt") -> str:
    """`key=path` as one types it in a shell."""
    if windows:  # which takes both slashes, and as quotes only the double ones that no name can hold
        path = path.replace("\\", "/")
    path = here(path)
    plain = f"{key}={path}"  # unless Hydra reads something else in it: 1e5, null
    if _PLAIN.fullmatch(path) and value_of(key, [plain]) == path:
        return plain
    return f'"{word(key, path)}"' if windows else shlex.quote(word(key, path))


def words_of(hydra: Any, kind: str) -> list[str]:
    """The command line as it was typed: Hydra's own words, kind `hydra`, or all others, `task`.

    Who takes them one by one from Hydra's settings gets each ${ in them resolved, and each \\${ unescaped.
    """
    overrides: Any = OmegaConf.to_container(hydra.overrides, resolve=False)
    return list(overrides[kind])


def text_of(value: Any) -> str:
    """A plain value, as YAML gives it, in Hydra's grammar. A text is in that already."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list():
            return f"[{','.join(map(_inner_text, value))}]"
        case dict():
            return "{" + ",".join(f"{key}:{_inner_text(inner)}" for key, inner in value.items()) + "}"
    return str(value)


def _inner_text(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else text_of(value)


def with_paths_quoted(arguments: list[str], keys: set[str]) -> list[str]:
    """Command-line arguments with the values of `keys`, which are paths, in Hydra's quotes where its grammar
    refuses them, as ~, other alphabets and most punctuation, or takes them for numbers, as 1e5.
    """
    is_sweep = bool(SWEEP & set(arguments))
    return [_with_path_quoted(argument, keys, is_sweep=is_sweep) for argument in arguments]


def _with_path_quoted(argument: str, keys: set[str], *, is_sweep: bool) -> str:
    key, _, text = argument.partition("=")
    is_mapping = key.lstrip("+") == MAPPING
    if key.lstrip("+") not in keys or not text or "${" in text:
        return argument
    if "," in text and not is_sweep and os.path.exists(text):  # its own name, not several values
        return word(key, text)
    if _is_plain(argument, is_mapping=is_mapping):
        return argument
    if key.startswith("hydra.") and text[0] == "~":  # Hydra would make a folder of that name, and now refuses
        return argument
    if is_mapping:
        several = _BETWEEN.split(text) if is_sweep else [text]
        return f"{key}={','.join(map(_mapping_quoted, several))}"
    if is_sweep and not re.search("['\"]", text):
        parts = [part if _is_plain(f"{key}={part}") else quoted(part) for part in text.split(",")]
        return f"{key}={','.join(parts)}"
    return word(key, text)


def _mapping_quoted(text: str) -> str:
    """A mapping as a list of its pairs: Hydra cannot quote a mapping's keys, but a list's texts."""
    inside = text[1:-1] if text[:1] + text[-1:] in ("{}", "[]") else text
    pairs = [_UNQUOTED.sub(r"\2\3", pair.strip()) for pair in inside.split(",")]
    return f"[{','.join(map(quoted, pairs))}]"


def _is_plain(argument: str, *, is_mapping: bool = False) -> bool:
    """Whether Hydra reads the argument, and no number or list where it is a path."""
    try:
        value = OverridesParser.create().parse_override(argument).value()
    except HydraException:
        return False
    return is_mapping or not isinstance(value, bool | int | float | list | dict)


def value_of(key: str, arguments: list[str]) -> str | None:
    """The text that the last word of `arguments` gives to `key`, read as Hydra reads it; '' for null."""
    given = [argument for argument in arguments if argument.lstrip("+").startswith(f"{key}=")]
    if not given:
        return None
    try:
        value = OverridesParser.create().parse_override(given[-1]).value()
        value = OmegaConf.create({"value": getattr(value, "text", value)}).value
    except (HydraException, OmegaConfBaseException):
        return given[-1].partition("=")[2]  # as it is refused with the rest
    return "" if value is None else str(value)
