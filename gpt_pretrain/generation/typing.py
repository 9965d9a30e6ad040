"""Lines typed at the terminal: editing, a history that lasts, commands completed by the tab key."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.generation.prompt_loop import end_unless_typed
from gpt_pretrain.terminal.text import show

COMMANDS = [entry.name for entry in dataclasses.fields(DecodingConfig)] + [
    "settings",
    "reset",
    "help",
    "quit",
]


def typed_lines(history: Path) -> Iterator[str]:
    """Lines from the terminal, which `history` remembers, or from a pipe."""
    sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # `encode` knows what to do
    on_terminal = sys.stdin.isatty()
    read = _editor(history) if on_terminal else lambda: input("")
    if on_terminal:
        show("type a text to continue, or /help", file=sys.stderr)
    while True:
        try:
            yield read()
        except EOFError:
            if on_terminal:
                show(file=sys.stderr)  # the shell begins a line of its own
            return
        except KeyboardInterrupt as interrupted:
            end_unless_typed(interrupted)
            show("\n(Ctrl-D or /quit ends)", file=sys.stderr)


def _editor(history: Path) -> Callable[[], str]:
    """How a line is read: by prompt_toolkit where it is installed, else as `input` does it."""
    with contextlib.suppress(OSError):  # without a history it works as well
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch(mode=0o600)
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory, InMemoryHistory
        from prompt_toolkit.shortcuts import CompleteStyle
    except ImportError:
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401 - input() uses it once it is imported
        show("(pip install '.[terminal]' adds a history that lasts)", file=sys.stderr)
        return lambda: input("> ")
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)) if history.is_file() else InMemoryHistory(),
        auto_suggest=AutoSuggestFromHistory(),
        completer=WordCompleter([f"/{name} " for name in COMMANDS], sentence=True),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,  # at once, as a shell does it
    )
    return lambda: session.prompt("> ")
