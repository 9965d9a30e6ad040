"""What is taken from a sweep's record onto a command line: every word that could be typed, nothing else."""

import json

import pytest

from gpt_pretrain.cli.sweeps import recorded_words, sweep_arguments
from gpt_pretrain.errors import ArtifactError

TYPED = [
    *(
        "optimizer.lr=1e-3,1e-4",
        "++optimizer.lr=1e-3,1e-4",
        "++seed=range(0,3)",
        "model=tiny",
        "model=tiny, mini",
    ),
    *("model=tiny,mini", "optimizer=sort(muon,adamw)", "optimizer=choice(muon,'sgd')", "experiment=null"),
    *(
        "data=glob(the_*)",
        "data=glob([a*,b],exclude=[c-*])",
        "experiment=my-own,1",
        "experiment=shuffle(a,b)",
    ),
    *("trainer.sample_prompt='a, b=c'", "schedule=str(choice(linear,cosine))"),
]
FOREIGN = [
    *(
        "hydra/launcher=joblib",
        "++hydra.sweep.dir=canary",
        "hydra.sweep.dir=canary",
        "+nosuch=1",
        "++nosuch.x=1",
    ),
    *(
        "model=../../canary",
        "model=tiny,../x",
        "model=sort(tiny,'/etc/x')",
        "model=glob(../*)",
        "model=[tiny]",
    ),
    *("model=glob(*,exclude=[../x])", "model=choice(tiny,[mini])", "model=''", "model='a b'", "model={a:b}"),
    *("model@optimizer=tiny", "model@hydra.sweep=tiny", "model=range(0,3)", "model=interval(0,1)", "~model"),
    *("~seed=1", "data.path=${oc.env:HOME}", "model='${oc.env:HOME}'", "model=tiny,\\${x}", "optimizer.lr"),
    *("seed=extend_list(1)", "sweep/x=1", "model.tiny=1"),
]


@pytest.fixture
def sweep(tmp_path):
    def holding(*words):
        (tmp_path / "search.json").write_text(json.dumps({"words": words}))
        return tmp_path

    return holding


@pytest.mark.parametrize("word", TYPED)
def test_what_could_be_typed_is_taken(sweep, word):
    assert recorded_words(sweep(word)) == [word]


@pytest.mark.parametrize("word", FOREIGN)
def test_what_is_no_setting_of_this_program_or_no_listed_option_is_not(sweep, word):
    with pytest.raises(ArtifactError, match="is taken from no record"):
        recorded_words(sweep(word))


@pytest.mark.parametrize("word", ["++data.cache_dir=x", "data.url=x", "+resume=x"])
def test_what_is_said_of_this_machine_here_and_now_is_left_out(sweep, word):
    assert recorded_words(sweep(word)) == []


def test_a_setting_is_typed_above_the_recorded_one_however_it_was_typed(sweep):
    folder = sweep("++optimizer.lr=1e-3,1e-4", "seed=1,2")
    arguments = sweep_arguments(str(folder), [f"resume={folder}", "optimizer.lr=1e-5", "++seed=3"])
    assert arguments[:-1] == ["-m", "optimizer.lr=1e-5", "++seed=3"]
