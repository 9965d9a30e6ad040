"""Lines typed at the terminal: edited, remembered and completed by prompt_toolkit, or without it."""

import io
import sys

import pytest

from gpt_pretrain.generation.typing import typed_lines


@pytest.fixture
def terminal(monkeypatch):
    """Standard input that says that it is a terminal; `type_` feeds keys to prompt_toolkit."""
    pytest.importorskip("prompt_toolkit")
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    stdin = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", stdin)

    def type_(history, keys):
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
            pipe.send_text(keys + "\x04")  # Ctrl-D
            return list(typed_lines(history))

    return type_


def test_lines_are_edited_and_the_history_outlasts_the_program(terminal, tmp_path):
    history = tmp_path / "cache" / "prompts"
    assert terminal(history, "stament\x1b[D\x1b[D\x1b[D\x1b[Dte\n") == ["statement"]  # by arrows to the left
    assert terminal(history, "second\n") == ["second"]
    assert terminal(history, "\x1b[A\n") == ["second"]  # the arrow up, in another program
    assert oct(history.stat().st_mode & 0o777) == "0o600"


def test_the_tab_key_completes_a_command(terminal, tmp_path):
    assert terminal(tmp_path / "h", "/temperatu\t0.8\n") == ["/temperature 0.8"]


def test_ctrl_c_ends_a_line_and_not_the_loop(terminal, tmp_path, capsys):
    assert terminal(tmp_path / "h", "half\x03whole\n") == ["whole"]
    assert "Ctrl-D or /quit ends" in capsys.readouterr().err


def test_a_history_that_cannot_be_written_is_done_without(terminal, tmp_path):
    (tmp_path / "file").touch()
    assert terminal(tmp_path / "file" / "history", "a\n") == ["a"]


def test_without_the_library_input_reads_and_says_what_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    stdin = io.TextIOWrapper(io.BytesIO(b"a\nb\n"))
    monkeypatch.setattr(stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert list(typed_lines(tmp_path / "h")) == ["a", "b"]
    assert "pip install '.[terminal]'" in capsys.readouterr().err
