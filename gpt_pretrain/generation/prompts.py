"""Prompts from the command line and from files, and results into one. Imports no torch."""

import os
import re
from pathlib import Path
from typing import Any

from gpt_pretrain.config.words import SWEEP, word
from gpt_pretrain.errors import InputError
from gpt_pretrain.foreign import json_text, parse_json, read_yaml
from gpt_pretrain.runs.record import SETTINGS

_TEXTS = ("prompt", "score", "decoding.stop", "decoding.banned_words")
_QUOTED = re.compile(r"""(['"])(?:\\.|(?!\1)[^\\])*\1""", re.DOTALL)
_IN_QUOTES = r"""\s*(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')\s*"""
_ENTRY = rf"""(?:{_IN_QUOTES}|[^][{{}}'",]+)"""
_LIST = re.compile(rf"\[(?:\s*|{_IN_QUOTES}|{_ENTRY}(?:,{_ENTRY})+)\]", re.DOTALL)


def quoted(arguments: list[str]) -> list[str]:
    """Command-line arguments with their texts in Hydra's quotes. Its grammar refuses most punctuation and
    other alphabets, reads `1e3` as a number and drops spaces at the ends. A text in quotes already stays.
    """
    if SWEEP & set(arguments):  # where commas part the values of a sweep
        return arguments
    return [_quoted(*argument.partition("=")) for argument in arguments]


def _quoted(key: str, equals: str, text: str) -> str:
    several = key.startswith("decoding.") and is_list(text)  # Hydra reads it
    if key not in _TEXTS or several or text in ("", "null") or _QUOTED.fullmatch(text):
        return key + equals + text
    return word(key, text)


def is_list(text: str) -> bool:
    """Whether a stop or banned text as typed is a list of texts: [], ["a"] or [a, b].

    Brackets around one without quotes are part of it, as in [INST].
    """
    return _LIST.fullmatch(text) is not None


def is_json_lines(path: str) -> bool:
    """Whether a file's name says that each of its lines is JSON."""
    return path.lower().endswith((".jsonl", ".ndjson", ".json"))


def read_prompts(path: str) -> list[str]:
    """One prompt a line; of JSON lines, each one's `prompt`. Raises InputError that names the line."""
    file = Path(path)
    if not file.is_file():
        raise InputError(
            f"prompts_file={path}: {'a folder: give a file' if file.is_dir() else 'no such file'}"
        )
    try:
        lines = file.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise InputError(f"prompts_file={path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"prompts_file={path} is not UTF-8 text: byte {error.start} is not") from error
    if zeros := [number for number, line in enumerate(lines, 1) if "\0" in line]:
        raise InputError(f"prompts_file={path} is no text: line {zeros[0]} holds a byte of zero")
    lines = [line.removesuffix("\r") for line in lines]
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(f"prompts_file={path} is empty: give one prompt a line")
    read = _from_json if is_json_lines(path) else (lambda line, place: line)
    prompts = [read(line, f"prompts_file={path}: line {number}") for number, line in enumerate(lines, 1)]
    for number, prompt in enumerate(prompts, 1):
        if not prompt:
            raise InputError(f"prompts_file={path}: line {number} is an empty prompt: give it text")
    return prompts


def _from_json(line: str, place: str) -> str:
    try:
        row = parse_json(line)
    except ValueError as error:
        raise InputError(f'{place} is not JSON ({error}): write {{"prompt": "..."}}') from error
    prompt = row.get("prompt") if isinstance(row, dict) else row
    if not isinstance(prompt, str):
        raise InputError(f'{place} has no text as its prompt: write {{"prompt": "..."}}')
    return prompt


def recorded_prompt(checkpoint: Path) -> str:
    """How samples of the run began whose checkpoint this is; of other weights the book's first words."""
    file = checkpoint / SETTINGS
    settings = read_yaml(file) if file.is_file() else {}
    for section, name in (("trainer", "sample_prompt"), ("data", "prompt")):
        values = settings.get(section)
        prompt = values.get(name) if isinstance(values, dict) else None
        if prompt and isinstance(prompt, str):
            return prompt
    return "Every effort moves you"


def check_writable(key: str, path: str, suffix: str) -> None:
    """Raise InputError where results of this kind cannot be written to `path`."""
    file = Path(path)
    if file.suffix != suffix:
        raise InputError(f"{key}={path}: its name must end in {suffix}")
    if not file.parent.is_dir():
        raise InputError(f"{key}={path}: there is no folder {file.parent}")
    if file.is_dir():
        raise InputError(f"{key}={path} is a folder: give a file")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise InputError(f"{key}={path}: you may not write there")


def json_line(row: dict[str, Any]) -> str:
    """A row of a JSONL file; what no UTF-8 can hold (lone surrogates) as JSON's own escapes."""
    line = json_text(row, ensure_ascii=False) + "\n"
    return line.encode("utf-8", "backslashreplace").decode()
