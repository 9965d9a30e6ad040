"""What to run next: what died goes on, unless it dies each time; nothing that is left is taken for done."""

import os

import pytest
from filelock import FileLock

from gpt_pretrain.config import SweepConfig
from gpt_pretrain.runs.owner import LOCK
from gpt_pretrain.sweep.queue import Queue
from gpt_pretrain.sweep.record import SweepRecord
from gpt_pretrain.sweep.search import Search
from gpt_pretrain.sweep.space import read_space
from gpt_pretrain.sweep.trial import RECORD, recorded


def queue(folder, words=("a=1,2",), obstacle=lambda point: None):
    search = Search(space=read_space(words, None, seed=0), config=SweepConfig(), version="", described={})
    record = SweepRecord(folder)
    record.begin({})
    return Queue(record, search, obstacle)


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
    own.record.update(0, reached=[2.5], metrics={"val/loss": [[1, 2.5]]})
    own.config.retry = True  # as another process that is told to try again
    own.begin()
    again = own.record.trials[0]
    assert (again.status, again.deaths) == ("waiting", 0)
    assert (again.reached, again.measured()) == ([2.5], {1: 2.5})  # it goes on from a checkpoint


def test_a_trial_that_runs_on_though_its_launcher_has_failed_is_left_to_itself(tmp_path):
    """As a cluster's job, where another one of the same launch was killed."""
    (first, second) = (own := queue(tmp_path)).next(2)
    (tmp_path / "0").mkdir()
    own.record.update(0, status="running", folder="0")
    with FileLock(tmp_path / "0" / LOCK):
        own.settle([first, second], {0: OSError("killed"), 1: OSError("killed")}, again=False)
    assert [trial.status for trial in own.record.trials.values()] == ["running", "failed"]


@pytest.mark.parametrize("status", ["interrupted", "paused"])
def test_a_trial_that_had_begun_before_and_cannot_be_launched_has_failed(tmp_path, status):
    """Else it would be launched again without end."""
    own = queue(tmp_path)
    own.config.prune = "halving"
    (first,) = own.next(1)
    own.record.update(first.number, status=status, reached=[2.5])
    own.record.release([first.number])
    trials = own.next(2)
    assert sorted(trial.number for trial in trials) == [0, 1]
    errors = {trial.number: OSError("no controller") for trial in trials}
    own.settle(trials, errors, again=False)
    assert [trial.status for trial in own.record.trials.values()] == ["failed"] * 2
    assert own.next(2) == []


@pytest.mark.parametrize("status", ["interrupted", "paused"])
def test_what_a_trial_says_of_its_own_end_stands_though_its_launch_has_failed(tmp_path, status):
    trials = (own := queue(tmp_path)).next(2)
    own.record.file(0).update(status=status)
    own.settle(trials, {0: OSError("killed"), 1: OSError("killed")}, again=False)
    assert [trial.status for trial in own.record.trials.values()] == [status, "failed"]


def test_a_trial_whose_launch_ends_well_and_that_never_began_has_failed(tmp_path):
    trials = (own := queue(tmp_path)).next(2)
    own.settle(trials, {}, again=False)
    assert [trial.status for trial in own.record.trials.values()] == ["failed"] * 2


def test_a_record_that_cannot_be_written_ends_the_sweep(tmp_path, monkeypatch):
    trials = (own := queue(tmp_path)).next(1)
    own.record.update(0, status="interrupted")
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("gpt_pretrain.sweep.record.write_json", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="No space"):
        own.settle([own.record.trials[0]], {trials[0].number: OSError("no controller")}, again=False)


def test_no_trial_is_taken_once_there_are_as_many_failures_as_are_borne(tmp_path):
    own = queue(tmp_path)
    own.config.most_failures = 1
    (first,) = own.next(1)
    own.record.update(first.number, status="refused")
    assert not own.has_given_up()  # what cannot work was never tried
    own.record.update(first.number, status="failed")
    assert (own.next(2), own.left()) == ([], 1)


def test_points_that_were_passed_over_leave_no_sweep_unfinished(tmp_path):
    own = queue(tmp_path)
    (trial,) = own.next(1)
    own.record.update(trial.number, status="finished")
    assert not own.record.has_ended(2)
    own.end()  # the other point was left out
    assert own.record.has_ended(2)
    assert not own.record.has_ended(3)  # more trials are asked for
    own.record.update(trial.number, status="waiting")
    assert not own.record.has_ended(2)


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


def test_what_is_left_of_a_large_grid_is_counted_without_a_look_at_each_point(tmp_path):
    """Which takes a tenth of a second, for each of a million."""
    looked_at = []
    own = queue(tmp_path, ["a=range(0,1000)", "b=range(0,1000)"], looked_at.append)
    own.config.impossible = "skip"
    (first,) = own.next(1)
    looked_at.clear()
    assert own.left() == 10**6
    own.record.update(first.number, status="failed")
    assert own.left() == 10**6 - 1
    own.end()  # the others were passed over, in another process
    assert (own.left(), looked_at) == (0, [])
