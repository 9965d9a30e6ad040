"""Points looked at before the start: the short way finds what composing each point finds."""

import pytest

from gpt_pretrain.errors import UserFacingError
from gpt_pretrain.sweep import check
from gpt_pretrain.sweep.check import Outlook, look_at_all
from gpt_pretrain.sweep.search import read_search
from gpt_pretrain.sweep.space import read_space
from tests.conftest import QUICK


def said(found):
    return found if isinstance(found, Outlook) else (type(found), str(found), found.exit_code)


@pytest.mark.slow
def test_the_short_way_finds_what_composing_each_point_finds(sense, monkeypatch):
    words = [
        *(*QUICK, "model.n_heads=2,3", "optimizer=sgd,adamw", "optimizer.momentum=0.9"),
        *("schedule.warmup_steps=0,90", "trainer.max_steps=50", "schedule.min_lr=1e-4,0.5"),
    ]
    space = read_space(words, sense.loader, 0)
    short = [said(found) for found in look_at_all(sense, space)]
    monkeypatch.setattr(check, "_by_value", lambda *_: None)
    assert short == [said(found) for found in look_at_all(sense, space)]
    causes = " ".join(str(found) for found in short)
    for cause in (
        "does not fit into a run of 50",
        "not divisible",
        "exceeds the peak",
        "belongs to",
    ):
        assert cause in causes
    assert any(isinstance(found, Outlook) for found in short)


@pytest.mark.slow
def test_the_chapter_s_search_has_its_12_960_points_and_is_looked_through_in_seconds(sense):
    search = read_search(sense, {}, ["sweep=chapter5_grid"], "")
    assert search.space.n_points == 12_960
    found = list(look_at_all(sense, search.space))
    good = [outlook for outlook in found if isinstance(outlook, Outlook)]
    assert len(good) > 10_000
    assert all(isinstance(other, Outlook | UserFacingError) for other in found)
    # batch 2 of windows of 256 tokens, 88,200 training tokens: 344 windows, 172 steps an epoch, 5 epochs
    assert good[0] == Outlook(steps=860, tokens=860 * 512, flops=good[0].flops)


def test_what_is_typed_goes_above_a_preset(sense):
    search = read_search(sense, {}, ["sweep=chapter5_small", "optimizer.lr=0.1", "model=tiny"], "")
    assert search.space.n_points == 8
    assert {"optimizer.lr=0.1", "model=tiny"} <= set(search.space.words(search.space.point(0)))


def test_a_setting_that_is_typed_with_a_plus_takes_the_short_way_too(sense):
    words = [*QUICK, "++seed=1,2", "++optimizer.lr=1e-3,-1"]
    space = read_space(words, sense.loader, 0)
    assert check._by_value(sense, space) is not None
    found = [said(found) for found in look_at_all(sense, space)]
    assert found[0] == found[2]
    assert isinstance(found[0], Outlook)
    assert "optimizer.lr=-1.0 is out of range" in found[1][1]
