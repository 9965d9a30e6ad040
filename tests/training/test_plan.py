import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import ModelConfig, TrainConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.training.plan import make_plan

SHAPE = ModelConfig(vocab_size=50257, context_length=256, emb_dim=8, n_heads=2, n_layers=1)

CONFIG = compose("train", TrainConfig, ["data.batch_size=2", "data.epochs=1"])


def plan_for(*overrides: str, n_windows: int = 18, world_size: int = 1):
    config = compose("train", TrainConfig, ["data.batch_size=2", "data.epochs=1", *overrides])
    return make_plan(config, SHAPE, n_windows=n_windows, world_size=world_size)


def test_ten_epochs_of_the_story_are_ninety_steps():
    plan = plan_for("trainer.max_epochs=10")  # the book: 18 windows, 9 batches
    assert (plan.steps_per_epoch, plan.steps) == (9.0, 90)


def test_an_epoch_of_fifteen_gives_appendix_d_its_135_steps():
    assert plan_for("trainer.max_epochs=15").steps == 135


def test_the_first_budget_to_be_used_up_ends_the_run():
    assert plan_for("trainer.max_epochs=10", "trainer.max_steps=7").steps == 7
    assert plan_for("trainer.max_tokens=5120", "trainer.max_steps=70").steps == 10
    assert str(plan_for().budget) == "data.epochs=1"


@given(
    budgets=st.fixed_dictionaries(
        {},
        optional={
            "trainer.max_steps": st.integers(1, 40),
            "trainer.max_tokens": st.integers(512, 20_000),
            "trainer.max_epochs": st.floats(0.2, 4),
        },
    )
)
def test_a_run_whose_named_budgets_are_doubled_goes_twice_as_far(budgets):
    def planned(budgets):
        config = copy.deepcopy(CONFIG)
        for setting, value in budgets.items():
            section, _, name = setting.rpartition(".")
            setattr(getattr(config, section), name, value)
        return make_plan(config, SHAPE, n_windows=18, world_size=1)

    plan = planned(budgets)
    doubled = {budget.setting: budget.doubled().value for budget in (plan.budget, *plan.others)}
    assert planned(budgets | doubled).steps >= 2 * plan.steps


def test_accumulation_fills_the_global_batch_whatever_the_number_of_devices():
    one, two = (plan_for("trainer.global_batch_tokens=2048", world_size=n) for n in (1, 2))
    assert (one.accumulate, two.accumulate) == (4, 2)
    assert one.tokens_per_step == two.tokens_per_step == 2048
    assert one.steps == two.steps == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.global_batch_tokens=700"], "no multiple of the 512 tokens"),
        (["trainer.max_tokens=100"], "less than one optimizer step"),
        (["schedule=constant", "schedule.warmup_steps=9"], "does not fit into a run of 9 steps"),
        (["data.batch_size=64"], "less than one optimizer step"),
    ],
)
def test_a_contradiction_is_refused_with_the_numbers(overrides, message):
    with pytest.raises(InputError, match=message):
        plan_for(*overrides)
