"""What to run next: what died goes on, unless it dies each time; nothing that is left is taken for done."""

import os

import pytest

from gpt_pretrain.config import SweepConfig
from gpt_pretrain.sweep.queue import Queue
from gpt_pretrain.sweep.record import SweepRecord
from gpt_pretrain.sweep.search import Search
from gpt_pretrain.sweep.space import read_space
from gpt_pretrain.sweep.trial import RECORD, recorded


def queue(folder):
    search = Search(space=read_space(["a=1,2"], None, seed=0), config=SweepConfig(), version="", described={})
    record = SweepRecord(folder)
    record.begin({})
    return Queue(record, search, lambda point: None)


@pytest.fixture
def die(tmp_path, monkeypatch):
    """Take the next trial and let its process die while it runs, or its own process `with_its_own`."""

    def die_(with_its_own=False):
        (trial,) = (own := queue(tmp_path)).next(1)
        monkeypatch.setenv(RECORD, str(own.record.file(trial.number).file))
        in_a_process_that_dies(lambda: in_a_process_that_dies(lambda: None) if with_its_own else None)
        own.record.release([trial.number])
        return trial.number

    def in_a_process_that_dies(go_on):
        pid = os.fork()
        if pid == 0:
            with recorded(tmp_path / "0"):
                go_on()
                os._exit(0)
        os.waitpid(pid, 0)

    return die_


def test_a_trial_whose_process_dies_is_begun_again_until_it_has_died_three_times_in_a_row(tmp_path, die):
    assert [die(), die(), die()] == [0, 0, 0]
    (trial,) = (own := queue(tmp_path)).next(2)
    given_up = own.record.trials[0]
    assert (trial.number, given_up.status, given_up.exit_code) == (1, "failed", 5)
    assert "died 3 times" in given_up.reason
    own.config.retry = True  # as another process that is told to try again
    own.begin()
    assert (own.record.trials[0].status, own.record.trials[0].deaths) == ("waiting", 0)


def test_a_trial_that_got_further_before_it_died_is_not_given_up(tmp_path, die):
    for step in range(6):
        (tmp_path / "0" / "checkpoints" / f"step-{step:08}").mkdir(parents=True)
        assert die() == 0
    assert queue(tmp_path).next(1)[0].number == 0


def test_a_trial_s_own_process_is_not_its_death(tmp_path, die):
    assert [die(with_its_own=True), die(with_its_own=True)] == [0, 0]
    own = queue(tmp_path)
    own.refresh()
    assert own.record.trials[0].deaths == 1


def test_what_no_process_has_and_has_not_ended_is_left(tmp_path):
    own, other = queue(tmp_path), queue(tmp_path)
    assert own.left() == 2
    (first, _) = other.next(2)
    assert own.left() == 0  # another process has both
    other.record.update(first.number, status="finished")
    other.record.release([0, 1])
    assert own.left() == 1
