"""The sweep's loop: what it tells while a launcher keeps it waiting."""

import time
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from gpt_pretrain.config import SweepConfig
from gpt_pretrain.sweep.course import Course
from tests.sweep.test_queue import queue


@pytest.mark.parametrize(("settings", "at_a_time"), [({}, 2), ({"most_failures": 1}, 1)])
def test_a_launcher_of_several_gets_all_trials_unless_one_may_decide_on_another(
    tmp_path, settings, at_a_time
):
    own = queue(tmp_path)
    own.config = SweepConfig(**settings)
    config = OmegaConf.create({"hydra": {"runtime": {"choices": {"hydra/launcher": "submitit_slurm"}}}})
    assert Course(None, None, config, None)._at_most(own) == at_a_time


def test_a_trial_s_end_is_told_while_a_launcher_of_several_still_runs(tmp_path):
    own, told = queue(tmp_path), []
    config = OmegaConf.create({"hydra": {"runtime": {"choices": {"hydra/launcher": "joblib"}}}})
    board = SimpleNamespace(
        look=lambda: told.extend(number for number, trial in own.record.trials.items() if trial.ended)
    )
    (first, second) = own.next(2)
    with Course(None, None, config, None)._looking(own, board):  # in it, launcher.launch has not returned yet
        own.record.file(first.number).update(status="finished")
        deadline = time.monotonic() + 20
        while first.number not in told:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert second.number not in told
