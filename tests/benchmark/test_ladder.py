"""The ladder from the chapter's settings to the program's: what its rungs are, and that it climbs them."""

import dataclasses
import re
from itertools import pairwise

import pytest

from gpt_pretrain.benchmark import ladder, training
from gpt_pretrain.benchmark.ladder import CHAPTER, rungs
from tests.terminal.test_streams import _type


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_rung_changes_one_thing_and_the_last_loop_is_the_programs(precision):
    found = rungs(precision)
    assert found[0] is CHAPTER
    for before, after in pairwise(found):
        one, other = (dataclasses.asdict(engine) for engine in (before, after))
        changed = {key for key in one if one[key] != other[key]} - {"name"}
        settings = {
            key for key in one["ways"] | other["ways"] if one["ways"].get(key) != other["ways"].get(key)
        }
        if after.kind == before.kind:
            assert len(changed - {"ways"}) + len(settings) == 1, after.name
    loop = [engine for engine in found if engine.kind == "loop"][-1]
    assert (loop.fused, loop.keeps_memory, loop.autocast) == (True, True, precision != "32-true")
    # What auto comes to on a CPU without dropout.
    assert loop.ways == {"attention": "sdpa", "dropout_kernel": "bits", "loss": "in_place"}


@pytest.mark.slow
def test_a_ladder_prints_the_gain_of_each_rung(tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "rungs", lambda precision: rungs(precision)[:3])
    words = ["model=tiny", "tokenizer=bytes", "steps=2", "rounds=1", "ladder=true"]
    code, shown = _type(tmp_path, "utf-8", training.benchmark, *words)
    assert code == 0, shown
    figure = r"[\d,]+(\.\d+)?"
    for line in (
        f"{figure} +the chapter",
        f"{figure} +{figure} +freed memory",
        f"{figure} +{figure} +AdamW in",
    ):
        assert re.search(line, shown), shown
