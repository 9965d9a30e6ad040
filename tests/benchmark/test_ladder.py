"""The ladder from the chapter's settings to the program's: what its rungs are, and that it climbs them."""

import dataclasses
import re
from itertools import pairwise

import pytest

from gpt_pretrain.benchmark import ladder, training
from gpt_pretrain.benchmark.ladder import CHAPTER, rungs
from gpt_pretrain.config import ModelConfig, TrainerConfig
from gpt_pretrain.training.machine import Machine
from gpt_pretrain.training.ways import find_ways
from tests.terminal.test_streams import _type


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_rung_changes_one_thing_and_the_last_loop_is_the_programs(precision, accelerator):
    found = rungs(precision, accelerator)
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
    # What auto comes to without dropout in a run that is too short to be compiled.
    machine = Machine(accelerator=accelerator, devices=1, num_nodes=1, precision=precision, strategy="one")
    model = ModelConfig(vocab_size=50257, context_length=8, emb_dim=8, n_heads=2, n_layers=2)
    typed, auto = (find_ways(TrainerConfig(**given), machine, model) for given in (loop.ways, {}))
    assert dataclasses.replace(typed, why="", tf32=False) == dataclasses.replace(auto, why="")


@pytest.mark.slow
def test_a_ladder_prints_the_gain_of_each_rung(tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "rungs", lambda *machine: rungs(*machine)[:3])
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
