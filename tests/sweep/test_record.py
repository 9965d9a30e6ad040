"""A sweep's memory: written whole or not at all, one process a trial, and safe to read from anywhere."""

import dataclasses
import json
import subprocess
import sys

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


def test_a_trial_is_read_as_it_was_written(sweep):
    trial = sweep.update(0, status="finished", objective=1.5, metrics={"val/loss": [[1, 2.5]]})
    assert SweepRecord(sweep.folder).refresh() == {0: trial}
    assert trial.measured() == {1: 2.5}


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
