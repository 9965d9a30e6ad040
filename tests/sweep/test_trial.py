"""A trial from its own side: what it writes, and a program of its own that is killed or signalled."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from gpt_pretrain.config import SweepConfig
from gpt_pretrain.errors import UserFacingError
from gpt_pretrain.sweep import trial
from gpt_pretrain.sweep.record import SweepRecord, Trial
from gpt_pretrain.training.plan import Plan
from tests.conftest import ROOT


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Let `run_alone` run another program, which gets the number of its start; how often it was started."""
    started = []

    def as_program(code: str):
        def command(hydra, words):
            started.append(words)
            return [sys.executable, "-c", code, str(len(started))]

        hydra = SimpleNamespace(get=lambda: OmegaConf.create({"overrides": {"task": []}}))
        monkeypatch.setattr(trial, "HydraConfig", hydra)
        monkeypatch.setattr(trial, "own_command", command)
        monkeypatch.delenv(trial.RECORD, raising=False)
        return lambda: trial.run_alone(tmp_path / "run"), started

    return as_program


KILLED = "import os, sys; os.kill(os.getpid(), 9) if int(sys.argv[1]) <= {times} else None"


def test_a_program_of_its_own_that_is_killed_is_begun_again_and_given_up_after_three_deaths(runs):
    run, started = runs(KILLED.format(times=2))
    run()
    assert len(started) == 3
    run, started = runs(KILLED.format(times=10**6))
    started.clear()
    with pytest.raises(UserFacingError, match="was killed 3 times on end") as error:
        run()
    assert (len(started), error.value.exit_code) == (3, 5)  # not that of a signal, which would end the sweep


def test_one_that_ends_by_itself_is_not_begun_again(runs):
    run, started = runs("raise SystemExit(4)")
    with pytest.raises(UserFacingError) as error:
        run()
    assert (len(started), error.value.exit_code) == (1, 4)


PASSES_ON = """
import sys
from gpt_pretrain.launch.signals import Interrupted, hearing
from gpt_pretrain.sweep.trial import _ended
child = '''
import signal, sys, time
def end(number, frame):
    time.sleep(1)  # as long as it takes to save
    print("saved", flush=True)
    sys.exit(128 + number)
signal.signal(signal.{name}, end)
print("runs", flush=True)
time.sleep(60)
'''
with hearing():
    code = _ended([sys.executable, "-c", child])
    print("ended with", code, flush=True)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_to_the_sweep_alone_is_passed_on_and_the_trial_saves(name):
    command = [sys.executable, "-c", PASSES_ON.format(name=name)]
    sweep = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert sweep.stdout.readline() == "runs\n"
    time.sleep(0.2)
    sweep.send_signal(signal.Signals[name])
    said, _ = sweep.communicate(timeout=60)
    assert said == f"saved\nended with {128 + signal.Signals[name]}\n"


@pytest.fixture
def judged(tmp_path, monkeypatch):
    record = SweepRecord(tmp_path)
    record.begin({})
    record.add(Trial(number=0, point={"a": "1"}))
    monkeypatch.setenv(trial.RECORD, str(record.file(0).file))
    return record


def test_what_is_beyond_all_numbers_fails_no_trial(judged):
    plan = SimpleNamespace(spec=Plan, steps=6, next_evaluation=lambda step: step)
    hear = trial.judge(SweepConfig(prune="halving", prune_at=[1, 3]), plan)
    assert hear(1, {"val/loss": 800.0, "val/perplexity": float("inf")}) == "paused"
    assert hear(3, {"val/loss": float("nan"), "val/perplexity": float("nan")}) == "paused"
    (row,) = judged.refresh().values()
    assert row.metrics == {"val/loss": [[1, 800.0]], "val/perplexity": []}
    assert row.reached == [800.0, sys.float_info.max]
    assert not [name for name in os.listdir(judged.file(0).file.parent) if name.endswith(".partial")]


def test_workers_are_started_with_all_that_was_typed_and_a_trial_s_own_program_without_the_sweep():
    typed = [
        "hydra.sweep.subdir=${hydra.job.override_dirname}",  # unresolved: it is another one for each trial
        "++hydra.sweep.dir=old",
        "hydra.sweeper.params={a: 1}",
        "++hydra.mode=MULTIRUN",
    ]
    hydra = SimpleNamespace(
        runtime=SimpleNamespace(config_sources=[]),
        job=SimpleNamespace(config_name="train"),
        overrides=OmegaConf.create({"hydra": [*typed, "+hydra.job.env_set.X=1", "hydra.job.name=n"]}),
    )
    worker = trial.own_command(hydra, [], left_out=("hydra.sweep.dir=",))
    assert worker[5:] == [typed[0], typed[2], "+hydra.job.env_set.X=1", "hydra.job.name=n"]
    assert trial.own_command(hydra, [])[5:] == ["hydra.job.name=n"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(SystemExit(256 + 3), 3), (SystemExit(-1), 255), (SystemExit("why"), 1), (SystemExit(), 1)],
)
def test_an_exit_code_is_the_one_that_a_shell_sees(error, code):
    assert trial.outcome(error)[:2] == ("interrupted", code)
