"""A sweep's memory: written whole or not at all, one process a trial, and safe to read from anywhere."""

import dataclasses
import json
import subprocess
import sys
import threading
import time

import pytest

from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.sweep import record
from gpt_pretrain.sweep.record import SweepRecord, Trial, TrialFile, to_trial


@pytest.fixture
def sweep(tmp_path):
    begun = SweepRecord(tmp_path / "sweep")
    begun.begin({"format": 1})
    begun.add(Trial(number=0, point={"a": "1"}, words=["a=1"]))
    return begun


def test_of_two_that_begin_at_once_the_first_one_s_search_stands(sweep):
    search = sweep.folder / "search.json"
    search.unlink()
    second = threading.Thread(target=SweepRecord(sweep.folder).begin, args=({"format": 2},))
    with sweep.turn():  # the first one has looked, and found none
        second.start()
        time.sleep(0.2)
        assert not search.exists()
        record.write_json(search, {"format": 1})
    second.join()
    assert sweep.search() == {"format": 1}


def test_a_trial_is_read_as_it_was_written(sweep):
    trial = sweep.update(0, status="finished", objective=1.5, metrics={"val/loss": [[1, 2.5]]})
    assert SweepRecord(sweep.folder).refresh() == {0: trial}
    assert trial.measured() == {1: 2.5}


def test_the_largest_values_of_a_trial_are_read_as_they_were_written(sweep):
    most = sys.float_info.max  # what halving takes for a loss that is none; a perplexity comes close to it
    changes = {"seed": 2**63 - 1, "exit_code": 255, "reached": [most], "metrics": {"a": [[2**53, most]]}}
    trial = sweep.update(0, **changes, tokens_seen=2**53, val_loss=3.4e38, seconds=0)
    assert SweepRecord(sweep.folder).refresh() == {0: trial}


def test_a_number_that_is_none_becomes_null(sweep):
    assert sweep.update(0, val_loss=float("nan"), best_val_loss=float("inf")).val_loss is None
    assert sweep.file(0).read().best_val_loss is None


def test_a_writer_that_dies_leaves_the_record_as_it_was(sweep, monkeypatch):
    before = sweep.file(0).file.read_bytes()
    for dying in ("fsync", "getpid"):
        with monkeypatch.context() as patch:
            patch.setattr(record.os, dying, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                sweep.update(0, status="running")
        assert sweep.file(0).file.read_bytes() == before
    assert list(SweepRecord(sweep.folder).refresh()) == [0]  # what the dead one left is no trial


def test_a_trial_has_one_process_at_a_time(sweep):
    code = (
        "import sys; from gpt_pretrain.sweep.record import SweepRecord; from pathlib import Path\n"
        "sweep = SweepRecord(Path(sys.argv[1])); sweep.refresh(); print(sweep.take(0))"
    )
    command = [sys.executable, "-c", code, str(sweep.folder)]
    assert sweep.take(0)
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
    sweep.release([0])
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"
    assert sweep.take(0)  # the other one has ended


@pytest.mark.parametrize(
    "change",
    [
        {"number": "0"},
        {"number": 7},
        {"status": "done"},
        {"point": ["a"]},
        {"point": {"a": 1}},
        {"folder": "/etc"},
        {"folder": "../other"},
        {"words": [1]},
        {"objective": "low"},
        {"metrics": {"val/loss": [["1", 2]]}},
        {"metrics": {"val/loss": [[1]]}},
        {"reached": ["1"]},
        {"reason": None},
        {"number": False},
        {"deaths": 1.5},
        {"objective": 10**400},
        {"objective": float("nan")},
        {"val_loss": float("inf")},
        {"seconds": None},
        {"exit_code": 256},
        {"exit_code": 4.5},
        {"exit_code": -1},
        {"exit_code": True},
        {"steps": 2**53 + 1},
        {"tokens_seen": 1.0},
        {"reached": [True]},
        {"metrics": {"val/loss": [[1, float("nan")]]}},
        {"metrics": {"val/loss": [[-1, 2.0]]}},
        {"folder": "\0"},
    ],
)
def test_what_is_no_trial_is_refused(sweep, change):
    plain = dataclasses.asdict(sweep.trials[0]) | change
    sweep.file(0).file.write_text(json.dumps(plain))
    with pytest.raises(ArtifactError):
        SweepRecord(sweep.folder).refresh()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"number": 0', "[" * 100_000, '{"a":' * 5000])
def test_a_damaged_record_is_named(sweep, content):
    sweep.file(0).file.write_text(content)
    with pytest.raises(ArtifactError, match=r"00000\.json"):
        SweepRecord(sweep.folder).refresh()


def test_what_a_later_version_adds_is_passed_over(sweep):
    plain = dataclasses.asdict(sweep.trials[0]) | {"news": 1}
    assert to_trial(plain, sweep.file(0).file) == sweep.trials[0]


def test_a_link_in_a_record_s_place_is_not_followed(sweep, tmp_path):
    elsewhere = tmp_path / "elsewhere.json"
    sweep.file(0).file.rename(elsewhere)
    sweep.file(0).file.symlink_to(elsewhere)
    with pytest.raises(ArtifactError):
        TrialFile(sweep.file(0).file).read()
