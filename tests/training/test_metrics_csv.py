"""metrics.csv has a row a step, whoever logs and in which order."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_pretrain.training import metrics_csv
from gpt_pretrain.training.loggers import CSV
from gpt_pretrain.training.metrics_csv import MetricsCSV, read_rows

logged = st.lists(
    st.tuples(
        st.integers(0, 6), st.dictionaries(st.sampled_from("abc"), st.floats(allow_nan=False), max_size=3)
    ),
    max_size=12,
)


@given(logged)
def test_the_file_holds_the_rows_in_their_order_with_all_that_was_logged_at_each(tmp_path_factory, logged):
    logger, expected = MetricsCSV(tmp_path_factory.mktemp("run") / "metrics.csv"), {}
    for step, values in logged:
        logger.log_metrics(values, step)
        known = expected.get(step, {})
        expected[step] = known | values if step == max([*expected, step]) else values | known
        rows = [{"step": step, **expected[step]} for step in sorted(expected)]
        assert logger.rows == rows
        assert read_rows(logger.file) == rows


def test_a_row_that_another_one_joins_costs_no_more_the_longer_the_file_is(tmp_path, monkeypatch):
    logger = MetricsCSV(tmp_path / "metrics.csv")
    logger.log_metrics({"own": 0.5, "a": 1.5}, 0)
    monkeypatch.setattr(metrics_csv, "replace", lambda *given: pytest.fail("all rows are written anew"))
    for step in range(1, 5):
        logger.log_metrics({"own": 1.5, "a": 0.123456}, step)
        logger.log_metrics({"a": step}, step)  # which is shorter
    expected = [{"step": 0, "own": 0.5, "a": 1.5}]
    assert read_rows(logger.file) == expected + [{"step": n, "own": 1.5, "a": n} for n in range(1, 5)]


steps = st.lists(st.integers(0, 99), min_size=1, max_size=12, unique=True).map(sorted)


@given(steps, st.integers(0, 11), st.floats() | st.integers(-1, 120))
def test_a_row_of_another_step_takes_no_other_row_with_it(tmp_path_factory, steps, at, wrong):
    written: list[float] = list(steps)
    written[at % len(steps)] = wrong
    file = tmp_path_factory.mktemp("run") / "metrics.csv"
    file.write_text("step,a\n" + "".join(f"{step},{number}\n" for number, step in enumerate(written)))
    found = read_rows(file)
    others = set(range(len(steps))) - {at % len(steps)}
    # No one can tell which of two rows is wrong where either, left out, leaves as many that rise.
    assert len(others - {row["a"] for row in found}) <= (at % len(steps) in {row["a"] for row in found})
    assert len(found) >= len(others)
    assert all(one["step"] < other["step"] for one, other in pairwise(found))
    assert all(0 <= row["step"] < math.inf for row in found)


def test_a_wrong_digit_takes_one_row_of_a_run_that_goes_on(tmp_path):
    logger = MetricsCSV(tmp_path / "metrics.csv")
    for step in range(1, 9):
        logger.log_metrics({"a": step}, step)
    logger.file.write_text(logger.file.read_text().replace("2,2", "9,2"))
    assert [row["step"] for row in MetricsCSV(logger.file, due=9).rows] == [1, 3, 4, 5, 6, 7, 8]


def test_what_is_no_number_is_told_and_takes_no_row_with_it(tmp_path, caplog):
    logger = CSV(tmp_path / "metrics.csv")
    logger.log_metrics({"a": 1.0}, 1)
    logger.log_metrics({"own": "a word"}, 1)
    logger.log_metrics({"a": math.inf}, 2)
    assert "metrics.csv" in caplog.text
    assert read_rows(logger.file) == [{"step": 1, "a": 1}, {"step": 2, "a": math.inf}]
