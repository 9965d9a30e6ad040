import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import (
    ConstantConfig,
    CosineConfig,
    LinearConfig,
    RisingConfig,
    TrainConfig,
    WSDConfig,
)
from gpt_pretrain.training.schedule import learning_rate, warmup_steps

APPENDIX_D = CosineConfig(warmup_share=0.2, initial_lr=1e-4, min_lr=1e-5)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1.000000e-4),
        (1, 4.666667e-4),
        (26, 9.633333e-3),
        (27, 1.0e-2),
        (54, 8.536998e-3),
        (81, 5.005000e-3),
        (134, 1.211313e-5),
    ],
)
def test_cosine_gives_the_numbers_of_appendix_d(step, expected):
    assert learning_rate(step, config=APPENDIX_D, peak=1e-2, total_steps=135) == pytest.approx(
        expected, rel=1e-6
    )


def test_a_fifth_of_135_steps_is_27_of_warmup():
    assert warmup_steps(APPENDIX_D, 135) == 27


@pytest.mark.parametrize("count", [0, 5])
def test_a_given_count_replaces_the_share_that_an_option_sets(count):
    config = compose("train", TrainConfig, ["schedule=cosine", f"schedule.warmup_steps={count}"])
    assert warmup_steps(config.schedule, 200) == count


def test_linear_falls_by_equal_amounts():
    config = LinearConfig(min_lr=0.0)
    values = [learning_rate(step, config=config, peak=1.0, total_steps=4) for step in range(4)]
    assert values == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_wsd_stays_at_the_peak_until_its_decay():
    config = WSDConfig(decay_share=0.5, min_lr=0.0)
    values = [learning_rate(step, config=config, peak=1.0, total_steps=8) for step in range(8)]
    assert values == pytest.approx([1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_a_rising_rate_grows_by_the_same_factor_at_each_step():
    config = RisingConfig(initial_lr=1e-4)
    values = [learning_rate(step, config=config, peak=1.0, total_steps=8) for step in range(8)]
    assert values == pytest.approx([1e-4 * 10 ** (step / 2) for step in range(8)])


def test_an_unset_start_climbs_evenly_from_nothing():
    config = ConstantConfig(warmup_steps=3)
    values = [learning_rate(step, config=config, peak=1.0, total_steps=9) for step in range(5)]
    assert values == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


@given(
    cls=st.sampled_from([ConstantConfig, CosineConfig, LinearConfig, WSDConfig]),
    total=st.integers(1, 300),
    data=st.data(),
)
def test_no_schedule_leaves_the_range_between_floor_and_peak(cls, total, data):
    warmup, step = data.draw(st.integers(0, total - 1)), data.draw(st.integers(0, total - 1))
    config = cls(warmup_steps=warmup, initial_lr=0.0, min_lr=0.1)
    value = learning_rate(step, config=config, peak=1.0, total_steps=total)
    assert 0 <= value <= 1
    if step >= warmup:
        assert value >= 0.1
