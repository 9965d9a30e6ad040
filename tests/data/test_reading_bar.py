import io
from types import SimpleNamespace

from rich.console import Console

from gpt_pretrain.data import reading_bar


def test_long_work_shows_files_bytes_speed_and_time_left_and_short_work_nothing(monkeypatch):
    screen, now = io.StringIO(), [0.0]
    terminal = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(reading_bar, "Console", lambda **options: terminal)
    monkeypatch.setattr(reading_bar, "time", SimpleNamespace(monotonic=lambda: now[0]))
    source = SimpleNamespace(n_files=7, files_read=2, n_bytes=40_000_000)
    with reading_bar.ReadingBar("tokenizing", source) as bar:
        now[0] = 0.4
        bar.advance(1_000_000)
        assert screen.getvalue() == ""
        now[0] = 2.0
        bar.advance(9_000_000)
        assert bar._bar is not None
        bar._bar.refresh()
    for word in ("tokenizing file 3 of 7", "10.0/40.0 MB", "5.0 MB/s", ":"):
        assert word in screen.getvalue()
