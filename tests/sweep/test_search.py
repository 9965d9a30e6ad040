"""Whether a folder holds this search: by what JSON makes of it, in whichever order it was typed."""

import json

import pytest
from omegaconf import OmegaConf

from gpt_pretrain.config import SweepConfig
from gpt_pretrain.sweep.record import SweepRecord
from gpt_pretrain.sweep.search import Search, _describe, differences, in_recorded_order, read_search
from gpt_pretrain.sweep.space import read_space


@pytest.mark.parametrize("settings", [{"decoding": {"logit_bias": {5: 1.0}}}, {"seed": 1, "debug": None}])
def test_a_search_is_the_one_that_its_record_holds(settings):
    described = _describe(read_space(["a=1,2"], None, 0), SweepConfig(), OmegaConf.create(settings), "")
    assert differences(described, json.loads(json.dumps(described))) == []


@pytest.mark.parametrize("words", [["a=1,2", "b=3,4,5", "c=7"], ["b=3,4,5", "c=7", "a=1,2"]])
def test_points_have_the_numbers_of_the_record_whatever_was_typed_first(tmp_path, words):
    space = read_space(words, None, 0)
    record = SweepRecord(tmp_path)
    search = Search(space=space, config=SweepConfig(), version="", described={})
    assert in_recorded_order(search, record).space == space  # nothing is recorded yet
    record.begin({"swept": {"a": "1,2", "b": "3,4,5"}})
    found = in_recorded_order(search, record).space
    assert [list(found.point(n).items()) for n in range(6)] == [
        [("a", a), ("b", b)] for a in "12" for b in "345"
    ]


def test_a_preset_s_values_are_those_of_its_yaml(sense):
    params = {"optimizer.lr": "1e-4,1e-3", "trainer.grad_clip": None, "logger.pictures": True, "seed": 3}
    sense.compose = lambda words: OmegaConf.create({"sweep": {"params": params}})
    search = read_search(sense, {"trainer.devices": None}, [], "")
    assert [entry.key for entry in search.space.swept] == ["optimizer.lr"]
    assert search.space.fixed == (
        *("trainer.grad_clip=null", "logger.pictures=true", "seed=3", "trainer.devices=null"),
    )
