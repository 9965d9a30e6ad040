"""Five steps of `tiny` from seed 123, written down: what changes them was meant to, or is a mistake.

The numbers may be updated with a deliberate change of what a user's run does: a default, an option's YAML,
the initialisation, the order of the windows, the seeds of the draws. Its commit then says which and why.
Never update them to get past a refactoring, a faster way or a new version of a library: these change no digit
here. Where one does, that is what to look into. pytest tests/training/test_pinned.py shows the new ones
beside the old.

The number of threads and the processor's instructions (ATEN_CPU_CAPABILITY) move them by 2e-5 at most.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors.torch import load_file

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import MEMBERS, OptimizerConfig, ScheduleConfig, TrainConfig
from gpt_pretrain.training.schedule import learning_rate
from gpt_pretrain.training.train import train

# Nothing else is set, so that every default counts. The precision is, since bfloat16 has three digits.
SETTINGS = ["model=tiny", "tokenizer=bytes", "trainer=cpu", "trainer.precision=32-true", "seed=123"]
# How long and how often it is watched decides nothing.
FIVE_STEPS = ["trainer.max_steps=5", "trainer.log_every=1", "trainer.eval_every=5"]
WATCHED = ["logger=csv", "decoding.max_new_tokens=1"]
SENTENCE = "the model reads every word and guesses what comes next until it is seldom wrong about a text"


class Pin(NamedTuple):
    losses: list[float]  # of the training steps
    grad_norm: float  # of the last step, before clipping
    val_loss: float  # after it
    weights_norm: float  # which shows a weight decay that five losses hardly do


PINS = {
    "optimizer=adamw schedule=cosine": Pin(
        [5.52757, 5.25996, 5.11870, 5.03219, 4.99543], 2.18312, 4.98346, 18.87996
    ),
    "optimizer=adam": Pin([5.52757, 5.25994, 5.11864, 5.03209, 4.99531], 2.18311, 4.98333, 18.88056),
    "optimizer=sgd": Pin([5.52757, 5.29036, 5.04336, 4.73677, 4.54287], 2.03720, 4.44130, 18.86464),
    "optimizer=muon": Pin([5.52757, 4.68657, 3.93328, 3.50670, 3.34764], 1.60373, 3.24961, 19.23311),
    "optimizer=muon optimizer.weight_decay=0.1": Pin(
        [5.52757, 4.68375, 3.92542, 3.49353, 3.33266], 1.59193, 3.23416, 19.29111
    ),
    "optimizer=adamw schedule=constant": Pin(
        [5.52757, 5.25996, 5.11051, 4.99780, 4.91449], 2.19085, 4.82893, 18.90766
    ),
    "optimizer=adamw schedule=linear": Pin(
        [5.52757, 5.25996, 5.12825, 5.04513, 5.00245], 2.18220, 4.98150, 18.88016
    ),
    # Its rate has hardly risen by then.
    "optimizer=adamw schedule=rising": Pin(
        [5.52757, 5.53253, 5.53938, 5.51192, 5.44231], 3.61473, 5.33448, 18.85142
    ),
    # Dropout's draws too, as bits and as torch makes them. tiny has none of its own.
    "optimizer=adamw model.drop_rate=0.1": Pin(
        [5.53288, 5.28019, 5.13292, 5.04772, 5.00965], 2.15410, 4.98681, 18.88018
    ),
    "optimizer=adamw model.drop_rate=0.1 trainer.dropout_kernel=torch trainer.attention=sdpa": Pin(
        [5.52442, 5.28061, 5.13027, 5.04492, 5.01089], 2.15576, 4.98410, 18.87934
    ),
    # Its decay begins after four fifths of the run, so five steps are those of the constant.
    "optimizer=adamw schedule=wsd": Pin(
        [5.52757, 5.25996, 5.11051, 4.99780, 4.91449], 2.19085, 4.82893, 18.90766
    ),
}
# Of the peak, at steps 0, 4, 5, 50, 90 and 99 of 100: five steps are too short for a warm-up by share.
RATES = {
    "constant": [1, 1, 1, 1, 1, 1],
    "cosine": [0.166667, 0.833333, 1, 0.587161, 0.124382, 0.100246],
    "linear": [0.166667, 0.833333, 1, 0.573684, 0.194737, 0.109474],
    "rising": [0.00001, 0.000015849, 0.000017783, 0.00316228, 0.316228, 0.891251],
    "wsd": [0.166667, 0.833333, 1, 1, 0.573684, 0.147368],
}


def test_every_optimizer_and_every_schedule_is_pinned():
    groups = {"optimizer": OptimizerConfig, "schedule": ScheduleConfig}
    pinned = {option for options in PINS for option in options.split() if "." not in option.split("=")[0]}
    assert pinned == {f"{group}={name}" for group, base in groups.items() for name in MEMBERS[base]}
    assert set(RATES) == set(MEMBERS[ScheduleConfig])


@pytest.mark.parametrize("options", PINS)
def test_five_steps_give_the_numbers_written_here(tmp_path, options):
    pin, measured = PINS[options], five_steps(tmp_path, *options.split())
    assert measured.losses == pytest.approx(pin.losses, abs=1e-4)
    assert measured.grad_norm == pytest.approx(pin.grad_norm, abs=5e-4 if "muon" in options else 1e-4)
    assert measured.val_loss == pytest.approx(pin.val_loss, abs=1e-4)
    assert measured.weights_norm == pytest.approx(pin.weights_norm, abs=1e-4)


@pytest.mark.parametrize("name", RATES)
def test_a_schedule_as_its_option_sets_it_has_the_rates_written_here(name):
    schedule = compose("train", TrainConfig, [f"schedule={name}"]).schedule
    rates = [
        learning_rate(step, config=schedule, peak=1.0, total_steps=100) for step in (0, 4, 5, 50, 90, 99)
    ]
    assert rates == pytest.approx(RATES[name], abs=1e-6)


def text() -> str:
    """Sentences by arithmetic: data=python_reference is another text in another Python."""
    state, words, vocabulary = 1, [], SENTENCE.split()
    for _ in range(6000):
        state = (1103515245 * state + 12345) % 2**31  # C's example of rand()
        words.append(vocabulary[(state >> 16) % len(vocabulary)] + ("." if state >> 28 == 0 else ""))
    return " ".join(words)


def five_steps(folder: Path, *overrides: str) -> Pin:
    (folder / "text.txt").write_text(text())
    data = ["data=text_files", f"data.path={folder / 'text.txt'}"]
    config = compose("train", TrainConfig, [*SETTINGS, *data, *FIVE_STEPS, *WATCHED, *overrides])
    train(config, prepared(config, folder), folder)
    with (folder / "metrics.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["step"] != "0"]
    weights = load_file(folder / "checkpoints" / "step-00000005" / "model.safetensors")
    squares = sum(tensor.double().square().sum().item() for tensor in weights.values())
    measured = (float(rows[-1][key]) for key in ("grad_norm", "val/loss"))
    return Pin([float(row["train/loss"]) for row in rows], *measured, squares**0.5)


def prepared(config: TrainConfig, folder: Path):
    from gpt_pretrain.training.preflight import preflight

    return preflight(config, folder)
