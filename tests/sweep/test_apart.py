"""A folder for each trial, whatever hydra.sweep.subdir says."""

import pytest
from hydra.types import RunMode

from gpt_pretrain.errors import InputError
from gpt_pretrain.sweep.apart import are_by_number, check_apart
from gpt_pretrain.sweep.check import Sense
from gpt_pretrain.sweep.space import read_space
from tests.conftest import QUICK

WORDS = [*QUICK, "optimizer.lr=interval(1e-4,1e-3)", "model=tiny,mini", "seed=choice(7)"]


@pytest.fixture
def check(sense):
    def check_(subdir, words=WORDS):
        master = sense.loader.load_configuration("train", [f"hydra.sweep.subdir={subdir}"], RunMode.MULTIRUN)
        check_apart(Sense(sense.loader, master, here=True), read_space(words, sense.loader, 0))

    return check_


@pytest.mark.parametrize(
    "subdir",
    [
        *("t_${hydra.job.num}", "a/${hydra:job.num}", "${hydra.job.id}", "${hydra.job.override_dirname}"),
        *("${optimizer.lr}-${model.n_layers}",),
    ],
)
def test_folders_that_differ_with_each_setting_are_taken(check, subdir):
    check(f"'{subdir}'")


@pytest.mark.parametrize(
    ("subdir", "said"),
    [
        ("same", "0.0001 model=tiny seed=7 and optimizer.lr=0.001 model=tiny seed=7 would share"),
        ("'${optimizer.lr}/../same'", "would share the folder same\n"),
        ("'x${optimizer.lr}'", "model=tiny seed=7 and optimizer.lr=0.0001 model=mini seed=7 would share"),
        ("'${model.n_layers}'", "optimizer.lr=0.0001 model=tiny"),
        ("'../${hydra.job.num}'", "leads out of the sweep's folder"),
        ("/elsewhere", "leads out of the sweep's folder"),
    ],
)
def test_a_folder_that_leaves_out_a_swept_setting_is_refused(check, subdir, said):
    with pytest.raises(InputError) as refusal:
        check(subdir)
    assert said in str(refusal.value)


def test_one_trial_may_be_called_anything_and_points_that_cannot_work_have_no_folder(check):
    check("same", [*QUICK, "seed=choice(7)"])
    check("same", [*QUICK, "nosuch=1,2"])


def test_folders_are_by_number_where_nothing_is_said(sense):
    assert are_by_number(sense.master)
