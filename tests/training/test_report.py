"""What a run says at its end."""

import logging

import pytest

from gpt_pretrain.training.report import INDENT, _say_wrapped


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
