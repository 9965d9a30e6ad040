"""What is said of a sweep whose records came from elsewhere: all of it, or which record is none."""

import dataclasses
import json
import logging

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt_pretrain.config import SweepConfig
from gpt_pretrain.errors import ArtifactError, UserFacingError
from gpt_pretrain.sweep.ahead import Ahead
from gpt_pretrain.sweep.board import Board
from gpt_pretrain.sweep.queue import Queue
from gpt_pretrain.sweep.record import ENDED, FINISHED, SweepRecord, Trial, write_json
from gpt_pretrain.sweep.search import Search
from gpt_pretrain.sweep.space import read_space

numbers = st.sampled_from(
    [0, 1, -1, 255, 256, 2**53 + 1, 10**400, -(10**400), 4.5, -0.0, 1e299, 1e300, 1.7e308, -1.7e308, 5e-324]
) | st.sampled_from([float("nan"), float("inf"), float("-inf"), True, False, None])
texts = st.sampled_from(
    ["", "a", "finished", "failed", "1", "2.5", "../x", "/etc", "\0", "\ud800", "\x1b[2J\n|"]
)
values = st.recursive(
    numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
rows = st.dictionaries(texts, st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=2), max_size=2)
fields = [entry.name for entry in dataclasses.fields(Trial)]
changes = st.dictionaries(st.sampled_from(fields), numbers | values | rows, max_size=3)
changes |= st.fixed_dictionaries(dict.fromkeys(("objective", "best_val_loss", "seconds"), numbers))


@pytest.fixture(scope="module", autouse=True)
def _without_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt_pretrain.sweep.pictures.draw", lambda *_: None)
        patch.setattr(Board, "_write_best", lambda *_: None)
        yield


def refused(what):
    try:
        what()
    except UserFacingError as error:
        return error
    return None


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(ENDED)), changes)
@example("finished", {"objective": 10**400})
@example("finished", {"objective": 1.7e308})
@example("finished", {"objective": float("nan")})
@example("finished", {"seconds": 10**400})
@example("finished", {"seconds": None})
@example("failed", {"exit_code": 256})
@example("failed", {"exit_code": 4.5})
@example("failed", {"exit_code": 10**30})
@example("failed", {"exit_code": -1, "reason": "\ud800"})
@example("finished", {"number": False})
@example("pruned", {"metrics": {"val/loss": [[float("inf"), 1.0]]}})
def test_a_hostile_record_is_a_trial_that_can_be_told_or_is_named(tmp_path_factory, status, changes):
    record = SweepRecord(tmp_path_factory.mktemp("sweep"))
    record.begin({})
    search = Search(space=read_space(["a=1,2,3,4"], None, 0), config=SweepConfig(), version="", described={})
    board = Board(queue := Queue(record, search, lambda point: None), Ahead(None, search))
    for number in range(1, 4):
        point = {"a": str(number + 1)}
        record.add(
            Trial(number=number, point=point, status=FINISHED, objective=float(number), best_val_loss=1.0)
        )
    plain = dataclasses.asdict(Trial(number=0, point={"a": "1"}, status=status)) | changes
    file = record.file(0).file
    file.write_text(json.dumps(plain))
    refusal = refused(queue.refresh)
    if refusal is not None:
        assert isinstance(refusal, ArtifactError)
        assert str(file) in str(refusal)
        return
    write_json(file, dataclasses.asdict(record.trials[0]))  # what was taken can be written again
    board.look()
    board.write()
    assert len((record.folder / "leaderboard.csv").read_text().splitlines()) >= 5
    refusal = refused(board.conclude)
    assert refusal is None or 0 < refusal.exit_code < 256


def test_the_table_is_written_whatever_a_trial_says_of_itself(tmp_path, caplog):
    """As a path that is no UTF-8, which its reason names."""
    record = SweepRecord(tmp_path)
    record.begin({})
    search = Search(space=read_space(["a=1,2"], None, 0), config=SweepConfig(), version="", described={})
    record.add(Trial(number=0, point={"a": "1"}, status="failed", reason="\udcff", exit_code=2))
    Board(Queue(record, search, lambda point: None), Ahead(None, search)).write()
    assert "\\udcff" in (tmp_path / "leaderboard.csv").read_text(encoding="utf-8")
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]
