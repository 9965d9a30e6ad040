"""What is refused while points are looked at, and what is not: a signal."""

import os
import signal

import pytest

from gpt_pretrain.cli.refusals import user_facing
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.launch.signals import Interrupted
from gpt_pretrain.sweep.check import Sense
from gpt_pretrain.sweep.refusals import refuse_with, refusing
from tests.conftest import QUICK


def over_it():
    """As OmegaConf's clean-up fails on a tree that a signal left half built."""
    try:
        raise Interrupted(signal.SIGTERM)
    finally:
        raise AttributeError


@pytest.mark.parametrize("interrupted", [over_it, lambda: (_ for _ in ()).throw(Interrupted(signal.SIGTERM))])
def test_a_signal_is_no_refusal(interrupted):
    refuse_with(lambda: user_facing(TrainConfig, debug=False))
    with pytest.raises(Interrupted), refusing(), refusing():
        list(interrupted() or ())
    with pytest.raises(InputError), refusing(), refusing():
        raise InputError("a refusal")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("values", ["seed=1,2,3", "model=tiny,mini", "optimizer.lr=interval(1e-4,1e-3)"])
def test_a_signal_while_points_are_looked_at_ends_the_sweep(typed, tmp_path, monkeypatch, number, values):
    outlook = Sense.outlook

    def interrupted(*arguments):
        monkeypatch.setattr(Sense, "outlook", outlook)  # once
        os.kill(os.getpid(), number)
        return outlook(*arguments)

    monkeypatch.setattr(Sense, "outlook", interrupted)
    sweep = ["sweep=random", "sweep.trials=2", "hydra.sweep.dir=sweep"]
    code, said = typed("train", "-m", *QUICK, *sweep, values)
    assert (code, said) == (128 + number, f"error: interrupted by {number.name}\n")
    assert not list(tmp_path.iterdir())
