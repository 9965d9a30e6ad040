"""Long work where there is no bar."""

import io
import sys

import pytest

from gpt_pretrain.terminal import silence


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "lines"), [(io.StringIO, ["4 of 9", "8 of 9"]), (Terminal, [])])
def test_a_line_comes_each_time_that_nothing_was_said_for_long(stream, lines, monkeypatch):
    clock, told = [0.0], stream()
    monkeypatch.setattr(silence.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stderr", told)
    quiet = silence.Silence()
    for done in range(10):
        clock[0] = done * 8.0  # due at 30 seconds, and 30 after the first line
        quiet.end(lambda: f"{done} of 9")  # noqa: B023
    assert told.getvalue().splitlines() == lines


def test_reading_text_and_downloading_break_it(monkeypatch, capsys):
    from types import SimpleNamespace

    from gpt_pretrain.data.reading_bar import ReadingBar
    from gpt_pretrain.weights.download import _bar

    monkeypatch.setattr(silence, "SECONDS", 0.0)
    source = SimpleNamespace(n_bytes=10**9, n_files=2, files_read=0)
    with ReadingBar("tokenizing", source) as shown:
        shown.advance(5 * 10**8)
    with _bar("model.safetensors.partial", 10**8, 10**9) as advance:
        advance(10**8)
    told = capsys.readouterr().err
    assert "tokenizing: 500 of 1,000 MB, " in told
    assert "downloading model.safetensors: 200 of 1,000 MB" in told
