"""The prompt loop: text in, its continuation out, settings changed on the fly."""

import dataclasses
import json
import signal
from collections.abc import Callable, Iterator

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpt_pretrain.config import DecodingConfig, nearest
from gpt_pretrain.config.fields import check_ranges
from gpt_pretrain.errors import InputError
from gpt_pretrain.generation.prompts import is_list
from gpt_pretrain.launch.signals import forget
from gpt_pretrain.terminal.text import show

HELP = """\
text                the model continues it; what was written before stays its context
an empty line       go on writing
/temperature 0.8    change a setting, /top_k null switches one off; so for {names}
/settings           show the settings
/reset              forget the text so far and go back to the first settings
/help  /quit        this text; the end (or Ctrl-D). Ctrl-C stops the writing
Each answer draws with the next seed; /seed 1 sets it."""

Stream = Callable[[str, DecodingConfig], Iterator[str]]  # pieces of a continuation


def converse(stream: Stream, config: DecodingConfig, lines: Iterator[str]) -> None:
    """Answer each of `lines` on standard output until there is no more, or `/quit`."""
    settings, context = config, ""
    for line in lines:
        if line.startswith("/"):
            if line.strip() == "/quit":
                return
            if line.strip() == "/reset":
                settings, context = config, ""
                show("the text and the settings are as at the beginning")
                continue
            try:
                settings = _obeyed(line, settings)
            except InputError as error:
                show(f"error: {error}")
            continue
        prompt = context + ("\n" if context and line else "") + line
        if not prompt:
            show("there is no text yet: type some, or /help")
            continue
        try:
            # Half a character at the end is shown as a replacement character, which is none of the text:
            # the model goes on where the last whole one ended.
            context = prompt + _written(stream(prompt, settings)).removesuffix("\N{REPLACEMENT CHARACTER}")
        except InputError as error:  # a character that its tokenizer lacks, say
            show(f"error: {error}")
            continue
        settings = dataclasses.replace(settings, seed=settings.seed + 1)


def _written(pieces: Iterator[str]) -> str:
    """Print the pieces as they come; Ctrl-C ends them."""
    text = ""
    try:
        for piece in pieces:
            text += piece
            show(piece, end="", flush=True)
    except KeyboardInterrupt as interrupted:
        end_unless_typed(interrupted)
    show(flush=True)
    return text


def end_unless_typed(interrupted: KeyboardInterrupt) -> None:
    """Ctrl-C stops the writing; any other signal ends the program."""
    if getattr(interrupted, "number", signal.SIGINT) != signal.SIGINT:
        raise interrupted
    forget()


def _obeyed(line: str, settings: DecodingConfig) -> DecodingConfig:
    """Settings after a line such as `/temperature 0.8`. Raises InputError for one that cannot be obeyed."""
    name, _, value = line[1:].strip().partition(" ")
    names = [entry.name for entry in dataclasses.fields(settings)]
    if name == "help":
        show(HELP.format(names=" ".join(names)))
        return settings
    if name == "settings":
        show("  ".join(_shown(settings, key) for key in names))
        return settings
    if name not in names:
        commands = [*names, "settings", "reset", "help", "quit"]
        raise InputError(f"/{name}: no such command{nearest(name, commands)}; /help lists them")
    if not value.strip():
        show(_shown(settings, name))
        return settings
    changed = _with(settings, name, value.strip())
    show(_shown(changed, name))
    return changed


def _shown(settings: DecodingConfig, name: str) -> str:
    """A setting as it can be typed."""
    return f"{name}={json.dumps(getattr(settings, name), ensure_ascii=False)}"


def _with(settings: DecodingConfig, name: str, value: str) -> DecodingConfig:
    is_text = name in ("stop", "banned_words") and value[0] not in "{\"'" and value != "null"
    is_text = is_text and not is_list(value)
    try:  # a text without quotes is none of YAML: it would find comments (###) and mappings (Q:) in it
        given = value if is_text else OmegaConf.from_dotlist([f"{name}={value}"])[name]
        tree = OmegaConf.structured(settings)
        OmegaConf.update(tree, name, given, merge=False)
        changed = OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:
        raise InputError(f"/{name}: {(error.msg or str(error)).splitlines()[0]}") from error
    except InputError:
        raise
    except Exception as error:  # yaml's own errors, of which omegaconf names none
        raise InputError(f"/{name}: {value!r} cannot be read as a value") from error
    assert isinstance(changed, DecodingConfig)
    check_ranges(changed, "")
    changed.check()
    if changed.num_return_sequences > 1:
        raise InputError("/num_return_sequences: one text is written at a time here")
    return changed
