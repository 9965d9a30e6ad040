"""The sweep's loop: what it tells while a launcher keeps it waiting."""

import time
from types import SimpleNamespace

from omegaconf import OmegaConf

from gpt_pretrain.sweep.course import Course
from tests.sweep.test_queue import queue


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
