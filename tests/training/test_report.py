"""What a run says at its end."""

import logging

import pytest

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import ModelConfig, TrainConfig
from gpt_pretrain.training.plan import make_plan
from gpt_pretrain.training.report import INDENT, _say_wrapped, _to_go_on

SHAPE = ModelConfig(vocab_size=257, context_length=8, emb_dim=8, n_heads=2, n_layers=1)


@pytest.mark.parametrize("width", [40, 80])
def test_a_sample_is_wrapped_below_its_word_and_loses_none(caplog, width):
    caplog.set_level(logging.INFO)
    sample = "The statement\nis  executed in a well-known namespace, " * 9
    _say_wrapped("after   ", sample, width)
    lines = caplog.messages
    assert all(len(line) <= width for line in lines)
    assert [line[:INDENT] for line in lines] == ["after   ", *[" " * INDENT] * (len(lines) - 1)]
    assert " ".join(line[INDENT:] for line in lines) == " ".join(sample.split())


def test_a_folder_s_name_is_never_broken(caplog):
    caplog.set_level(logging.INFO)
    head = "in outputs/" + "long-name/" * 9 + ": "
    _say_wrapped(head, "checkpoints, loss.png, metrics.csv", 80)
    assert caplog.messages[0].startswith(head + "checkpoints,")


def test_an_empty_sample_says_nothing(caplog):
    caplog.set_level(logging.INFO)
    _say_wrapped("after   ", " \n", 80)
    assert not caplog.messages


def test_what_goes_on_with_a_diverged_run_is_accepted():
    """A floor, and a first rate, above the new peak would be refused."""
    for rates in (["schedule.min_lr=0.02"], ["schedule.min_lr=0.001", "schedule.initial_lr=0.01"]):
        words = ["optimizer.lr=0.03", *rates]
        config = compose("train", TrainConfig, words)
        plan = make_plan(config, SHAPE, n_windows=40, world_size=1)
        config.check()
        again = compose("train", TrainConfig, [*words, *_to_go_on(config, plan, {"exit_reason": "diverged"})])
        again.check()
        assert again.optimizer.lr == pytest.approx(0.003)
        assert again.schedule.min_lr <= 0.003
