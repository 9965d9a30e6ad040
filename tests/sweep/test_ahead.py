"""What is said before a sweep starts."""

from gpt_pretrain.config import SweepConfig
from gpt_pretrain.sweep import ahead
from gpt_pretrain.sweep.search import Search
from gpt_pretrain.sweep.space import read_space


def test_who_waits_for_many_points_to_be_looked_at_is_told_once(monkeypatch, capsys):
    space = read_space(["a=range(0,1200)"], None, 0)
    search = Search(space=space, config=SweepConfig(), version="", described={})
    times = iter(range(10**6))
    monkeypatch.setattr(ahead, "perf_counter", lambda: float(next(times)))
    monkeypatch.setattr(ahead, "look_at_all", lambda *_: iter(range(1200)))
    assert len(ahead.look_ahead(None, search).outlooks) == 1200
    assert capsys.readouterr().out.count("looks at 1,200 points") == 1
    monkeypatch.setattr(ahead, "perf_counter", lambda: 0.0)
    ahead.look_ahead(None, search)
    assert capsys.readouterr().out == ""  # it took no time
