"""Which point comes next and which trial ends: Optuna's own pruners and arithmetic are the oracles."""

import random

import pytest

from gpt_pretrain.config import SweepConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.sweep.record import DIVERGED, FAILED, FINISHED, PAUSED, RUNNING, Trial
from gpt_pretrain.sweep.space import read_space
from gpt_pretrain.sweep.strategies import build_draw, median_gives_up, n_trials, promoted, rungs


def space(*words: str):
    return read_space(words, None, seed=0)


def searched(words, config, value, stop_at=None, trials=None):
    """Run a search without training: `value` of each point."""
    trials = {} if trials is None else trials
    draw = build_draw(space(*words), config)
    for number in range(len(trials), n_trials(space(*words), config) if stop_at is None else stop_at):
        point = draw(number, trials)
        loss = value(point)
        status = DIVERGED if loss is None else FINISHED
        trials[number] = Trial(number=number, point=point, status=status, objective=loss)
    return trials


def test_random_search_of_a_list_takes_each_point_once():
    trials = searched(["a=range(0,7)", "b=x,y,z"], SweepConfig(strategy="random", seed=3), lambda point: 1.0)
    points = [tuple(trial.point.values()) for trial in trials.values()]
    assert len(points) == len(set(points)) == 21
    assert points != sorted(points)


def test_random_search_draws_as_many_as_are_wanted_and_others_with_another_seed():
    config = SweepConfig(strategy="random", trials=8)
    first = searched(["a=interval(0,1)"], config, lambda point: 1.0)
    again = searched(["a=interval(0,1)"], config, lambda point: 1.0)
    other = searched(["a=interval(0,1)"], SweepConfig(strategy="random", trials=8, seed=1), lambda point: 1.0)
    assert len(first) == 8
    assert first == again != other


@pytest.mark.parametrize("strategy", ["random", "tpe", "cmaes"])
def test_a_search_that_goes_on_draws_what_it_would_have_drawn(strategy):
    pytest.importorskip("optuna")
    pytest.importorskip("cmaes")
    config = SweepConfig(strategy=strategy, trials=14)
    words = ["a=interval(-3,3)", "b=tag(log, interval(1e-4, 1))"]

    def value(point):
        loss = (float(point["a"]) - 1) ** 2 + abs(float(point["b"]) - 0.01)
        return None if loss > 8 else loss

    whole = searched(words, config, value)
    broken = searched(words, config, value, stop_at=6)
    assert searched(words, config, value, trials=dict(broken)) == whole


@pytest.mark.parametrize("strategy", ["random", "tpe", "cmaes"])
def test_workers_that_begin_together_draw_other_points(strategy):
    pytest.importorskip("optuna")
    pytest.importorskip("cmaes")
    draw = build_draw(space("a=interval(0,1)", "b=interval(0,1)"), SweepConfig(strategy=strategy))
    trials: dict[int, Trial] = {}
    for number in range(6):  # none of them has measured anything yet
        trials[number] = Trial(number=number, point=draw(number, trials), status=RUNNING)
    assert len({tuple(trial.point.values()) for trial in trials.values()}) == 6


def test_null_and_truth_are_values_like_others():
    pytest.importorskip("optuna")
    words = ["data.max_files=null,3", "trainer.eval_train=true,false"]
    config = SweepConfig(strategy="tpe", trials=12)
    trials = searched(words, config, lambda point: float(point["data.max_files"] == "null"))
    assert {trial.point["data.max_files"] for trial in trials.values()} == {"null", "3"}
    assert {trial.point["trainer.eval_train"].lower() for trial in trials.values()} == {"true", "false"}


def test_tpe_also_chooses_from_lists_and_whole_numbers():
    pytest.importorskip("optuna")
    words = ["a=x,y,z", "n=int(interval(1,9))", "r=range(1,4)"]
    found = space(*words)
    trials = searched(words, SweepConfig(strategy="tpe", trials=10), lambda point: float(point["n"]))
    assert len(trials) == 10
    assert all(found.holds(trial.point) for trial in trials.values())


@pytest.mark.parametrize(
    ("words", "strategy", "said"),
    [
        (["a=interval(0,1)"], "grid", "sweep=random, or sweep=tpe"),
        (["a=1,2"], "cmaes", "choose sweep=tpe"),
    ],
)
def test_a_strategy_that_cannot_search_says_which_can(words, strategy, said):
    with pytest.raises(InputError, match=said):
        build_draw(space(*words), SweepConfig(strategy=strategy))


@pytest.mark.parametrize("strategy", ["tpe", "cmaes"])
def test_without_optuna_the_extra_is_named(strategy, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install '\.\[sweep\]'"):
        build_draw(space("a=interval(0,1)"), SweepConfig(strategy=strategy))


def test_the_median_rule_decides_as_optunas():
    optuna = pytest.importorskip("optuna")
    chance = random.Random(0)
    decided = {True: 0, False: 0}
    for _ in range(200):
        curves = [{step: chance.random() for step in (2, 4, 6)} for _ in range(chance.randrange(3, 9))]
        own = {step: chance.random() for step in (2, 4, 6)[: chance.randrange(1, 4)]}
        trials = [
            Trial(
                number=n,
                point={},
                status=FINISHED,
                metrics={"val/loss": [list(row) for row in curve.items()]},
            )
            for n, curve in enumerate(curves)
        ]
        study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=4))
        for curve in curves:
            study.add_trial(optuna.trial.create_trial(value=0.0, intermediate_values=curve))
        asked = study.ask()
        for step, value in own.items():
            asked.report(value, step)
        ours = median_gives_up(own, trials, from_step=4)
        assert ours == asked.should_prune()
        decided[ours] += 1
    assert min(decided.values()) > 20


def test_rungs_are_evaluations_before_the_end():
    def every(n):
        return lambda step: -(-step // n) * n

    assert rungs(SweepConfig(), 90, every(5)) == [10, 30]
    assert rungs(SweepConfig(reduction=2), 80, every(1)) == [20, 40]
    assert rungs(SweepConfig(prune_at=[3, 7, 200]), 20, every(5)) == [5, 10]
    assert rungs(SweepConfig(), 2, every(2)) == []


def halved(losses, reduction=3):
    """Halving of trials whose loss at each of two rungs, and at the end, is known: steps of a third each."""
    trials = {n: Trial(number=n, point={}, status=PAUSED, reached=[loss[0]]) for n, loss in enumerate(losses)}
    while (trial := promoted(trials.values(), reduction)) is not None:
        loss = losses[trial.number]
        if len(trial.reached) < 2:
            trial.reached.append(loss[len(trial.reached)])
        else:
            trial.status, trial.objective = FINISHED, loss[2]
    return trials


def test_halving_finishes_the_best_of_the_best():
    chance = random.Random(1)
    losses = [[quality + 1, quality + 0.5, quality] for quality in chance.sample(range(100), 27)]
    trials = halved(losses)
    assert sorted(len(trial.reached) for trial in trials.values()) == [1] * 18 + [2] * 9
    finished = [trial for trial in trials.values() if trial.status == FINISHED]
    assert sorted(trial.objective for trial in finished) == sorted(loss[2] for loss in losses)[:3]


@pytest.mark.parametrize("status", [DIVERGED, FAILED])
def test_who_fails_after_a_rung_leaves_its_place_to_the_next_best(status):
    trials = [Trial(number=n, point={}, status=PAUSED, reached=[n]) for n in range(6)]
    trials[0].status = status
    assert promoted(trials, 3).number == 1
    trials[1].status = RUNNING
    assert promoted(trials, 3).number == 2  # two of six go on, though one of the first two has failed
    trials[2].status = FINISHED
    assert promoted(trials, 3) is None


@pytest.mark.parametrize("count", [1, 2, 5])
def test_halving_of_few_trials_finishes_one(count):
    trials = halved([[n, n, n] for n in range(count)])
    assert [trial.number for trial in trials.values() if trial.status == FINISHED] == [0]
