"""How a setting is typed: for Hydra's grammar, and for the shell before it."""

import re
import shlex

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

SWEEP = {"-m", "--multirun"}  # what asks for several runs on a command line
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


def typed(key: str, value: str) -> str:
    """`key=value` as one types it in a shell."""
    plain = f"{key}={value}"  # unless Hydra reads something else in it: 1e5, null
    is_plain = _PLAIN.fullmatch(value) and value_of(key, [plain]) == value
    return plain if is_plain else shlex.quote(word(key, value))


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
