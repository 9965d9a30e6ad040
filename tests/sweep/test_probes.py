"""Sweeps that look for one number: known answers first, then as typed."""

import csv
import itertools
import math

import pytest

from gpt_pretrain.config import SweepConfig
from gpt_pretrain.sweep import probes
from gpt_pretrain.sweep.probes import Speed, fastest, is_settled, range_test
from gpt_pretrain.sweep.record import DIVERGED, FAILED, FINISHED, SweepRecord, Trial
from tests.conftest import QUICK
from tests.sweep.test_sweeper import NAMED, records

RATES = [1e-5 * 10 ** (step / 40) for step in range(200)]  # to 1
SEEKS = SweepConfig(seeks="batch_size")


def falling(rate: float, at: float) -> float:
    """A loss that falls from 8 to 4, fastest at `at`, and leaps at 0.5."""
    return 4 + 4 / (1 + (rate / at) ** 2) + (50 if rate > 0.5 else 0)


@pytest.mark.parametrize("at", [1e-3, 1e-2])
def test_the_rate_is_suggested_at_which_the_loss_falls_fastest(at):
    test = range_test(
        [{"step": i, "lr": rate, "train/loss": falling(rate, at)} for i, rate in enumerate(RATES)]
    )
    assert test.suggested == pytest.approx(at, rel=0.1)
    assert 0.3 < test.lowest < 0.5  # as far before the leap as a mean reaches
    assert max(test.rates) < 0.55  # what follows the leap is left out


def test_no_rate_is_suggested_where_the_loss_only_rises_or_nothing_was_measured():
    rising = [{"step": i, "lr": rate, "train/loss": 5 + i / 100} for i, rate in enumerate(RATES)]
    assert range_test(rising).suggested is None
    assert range_test([]).suggested is None
    assert range_test([{"step": 1, "lr": 1e-3, "train/loss": math.nan}]).suggested is None


def test_the_mean_of_a_constant_is_that_constant_at_both_ends_too():
    flat = [{"step": i, "lr": rate, "train/loss": 3.0} for i, rate in enumerate(RATES)]
    assert range_test(flat).smoothed == pytest.approx([3.0] * len(RATES))


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """A record of trials with these speeds by batch size; a speed of None: it failed."""
    monkeypatch.setattr(probes, "_memory_mb", lambda: 1000.0)

    def record(speeds, memory_mb=1):
        sweep = SweepRecord(tmp_path)
        sweep.begin({})
        for number, (size, speed) in enumerate(speeds.items()):
            (tmp_path / str(number)).mkdir(exist_ok=True)
            rows = [f"{step},{speed if step > 2 else 1},{memory_mb * size}" for step in range(1, 6)]
            text = "\n".join(["step,tokens_per_sec,memory_mb", *rows, ""])
            (tmp_path / str(number) / "metrics.csv").write_text(text)
            status = FAILED if speed is None else FINISHED
            point = {"data.batch_size": str(size)}
            sweep.add(Trial(number=number, point=point, status=status, folder=str(number)))
        return sweep

    return record


@pytest.mark.parametrize(
    ("speeds", "settled"),
    [
        ({}, False),
        ({1: 100, 2: 190, 4: 350}, False),
        ({1: 100, 2: 102}, False),  # the next one may bring more
        ({1: 100, 2: 190, 4: 192, 8: 350}, False),
        ({1: 100, 2: 101, 4: 102}, True),
        ({1: 100, 2: 190, 4: 191, 8: 120}, True),
        ({1: 100, 2: 190, 4: None}, True),
    ],
)
def test_batches_are_doubled_until_memory_or_the_gain_has_ended(tried, speeds, settled):
    assert is_settled(SEEKS, {"data.batch_size": "16"}, tried(speeds)) is settled
    assert not is_settled(SweepConfig(), {"data.batch_size": "16"}, tried(speeds))  # of another search


def test_a_batch_is_not_tried_that_the_machine_s_memory_cannot_hold(tried):
    assert is_settled(SEEKS, {"data.batch_size": "16"}, tried({8: 100}, memory_mb=70))
    assert not is_settled(SEEKS, {"data.batch_size": "16"}, tried({8: 100}, memory_mb=50))


def test_the_smallest_batch_that_is_nearly_the_fastest_is_suggested():
    speeds = [Speed(1, 100, 0), Speed(2, 196, 0), Speed(4, 200, 0), Speed(8, 190, 0)]
    assert fastest(speeds).batch_size == 2
    assert fastest([]) is None


@pytest.fixture
def shown(monkeypatch) -> list[str]:
    """What the sweep says of its result."""
    lines: list[str] = []
    monkeypatch.setattr("gpt_pretrain.sweep.board.show", lambda line="": lines.append(line))
    return lines


FEW = [*QUICK, "model.n_layers=1", "model.emb_dim=32"]


@pytest.mark.trains
def test_the_range_test_as_typed_draws_tabulates_and_suggests(typed, tmp_path, shown):
    words = ["sweep=lr_range", "trainer.max_steps=60", "optimizer=adamw", "optimizer.lr=1e4", NAMED]
    code, said = typed("train", "-m", *FEW, *words)
    assert code == 0, said
    (trial,) = records(tmp_path / "sweep")
    assert trial["status"] in (FINISHED, DIVERGED)
    with (tmp_path / "sweep" / "lr_range.csv").open() as stream:
        rates = [float(row["lr"]) for row in csv.DictReader(stream)]
    assert rates[0] == pytest.approx(1e-5)
    assert all(later / rate == pytest.approx(1e9 ** (1 / 60)) for rate, later in itertools.pairwise(rates))
    assert (tmp_path / "sweep" / "lr_range.png").stat().st_size > 5000
    assert any(line.startswith("suggested  optimizer.lr=") for line in shown)


@pytest.mark.trains
def test_the_batch_size_finder_as_typed_ends_by_itself_and_out_of_memory_is_no_failure(
    typed, tmp_path, monkeypatch, shown
):
    from gpt_pretrain.training import train as training

    real, tried = training.train, []

    def train(config, *rest):
        tried.append(config.data.batch_size)
        if config.data.batch_size == 4:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return real(config, *rest)

    monkeypatch.setattr("gpt_pretrain.training.train.train", train)
    words = ["-m", *FEW, "sweep=batch_size", "data.batch_size=1,2,4,8", "trainer.max_steps=4", NAMED]
    code, said = typed("train", *words)
    assert (code, tried) == (0, [1, 2, 4]), said
    assert [row["status"] for row in records(tmp_path / "sweep")] == ["finished", "finished", "failed"]
    with (tmp_path / "sweep" / "batch_size.csv").open() as stream:
        assert [row["data.batch_size"] for row in csv.DictReader(stream)] == ["1", "2"]
    assert (tmp_path / "sweep" / "batch_size.png").stat().st_size > 5000
    assert any(line.startswith("suggested  data.batch_size=") for line in shown)
    assert typed("train", *words)[0] == 0
    assert tried == [1, 2, 4]  # what is known is not tried again
