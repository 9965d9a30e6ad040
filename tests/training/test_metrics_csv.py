"""metrics.csv has a row a step, whoever logs and in which order."""

import math

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


def test_what_is_no_number_is_told_and_takes_no_row_with_it(tmp_path, caplog):
    logger = CSV(tmp_path / "metrics.csv")
    logger.log_metrics({"a": 1.0}, 1)
    logger.log_metrics({"own": "a word"}, 1)
    logger.log_metrics({"a": math.inf}, 2)
    assert "metrics.csv" in caplog.text
    assert read_rows(logger.file) == [{"step": 1, "a": 1}, {"step": 2, "a": math.inf}]
