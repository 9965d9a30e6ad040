"""The points that a command line spans, compared with Hydra's own sweeper and with arithmetic."""

import random

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from gpt_pretrain.errors import InputError
from gpt_pretrain.sweep.space import read_space

GRIDS = [
    ["a=1,2,3", "b=10,20"],
    ["a=range(1,4)", "b=x,y", "c=5"],
    ["a=choice(1e-4,3e-4)", "+b='x, y','z'"],
    ["a=[1,2],[3]", "b={x:1},{y:2}"],
    ["a=range(0,1,0.25)", "seed=1"],
    ["a=1,2", "a=3,4"],
    ["a=1,2", "a=3"],
    ["a=1", "b@c=x,y"],
    ["a=null,true,0x"],
]


@pytest.mark.parametrize("words", GRIDS)
def test_a_grid_has_the_points_of_hydras_own_sweeper_in_its_order(words):
    parsed = OverridesParser.create().parse_overrides(words)
    (theirs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    space = read_space(words, None, seed=0)
    ours = [space.words(space.point(index)) for index in range(space.n_points)]
    assert sorted(map(sorted, ours)) == sorted(map(sorted, theirs))
    keys = [entry.key for entry in space.swept]
    in_order = [[word for word in trial if word.split("=")[0] in keys] for trial in theirs]
    assert [[word for word in trial if word.split("=")[0] in keys] for trial in ours] == in_order


def test_a_value_that_is_given_twice_is_one_point():
    assert read_space(["a=1,1,2"], None, seed=0).n_points == 2


def test_shuffled_values_have_an_order_that_follows_from_the_seed():
    spaces = [read_space(["a=shuffle(range(0,20))"], None, seed) for seed in (0, 0, 1)]
    first, again, other = ([space.point(index)["a"] for index in range(20)] for space in spaces)
    assert first == again != other
    assert sorted(first, key=int) == sorted(other, key=int) == [str(n) for n in range(20)]


@pytest.mark.parametrize(
    "text", ["interval(0.1, 2)", "tag(log, interval(1e-5, 1e-2))", "int(interval(1, 9))"]
)
def test_what_is_drawn_of_an_interval_lies_in_it(text):
    (entry,) = read_space([f"a={text}"], None, seed=0).swept
    drawn = [entry.draw(random.Random(k)) for k in range(200)]
    assert all(entry.holds(value) for value in drawn)
    assert len(set(drawn)) > 5
    assert entry.low <= min(map(float, drawn)) < max(map(float, drawn)) <= entry.high
    if entry.log:  # half of them lie below the geometric mean
        below = sum(float(value) < (entry.low * entry.high) ** 0.5 for value in drawn)
        assert 70 < below < 130
    assert entry.whole == all(value.lstrip("-").isdecimal() for value in drawn)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("a=interval(2, 1)", "from a number to a larger one"),
        ("a=tag(log, interval(0, 1))", "by size from above 0"),
        ("a=range(3,3)", "has no value"),
    ],
)
def test_values_that_are_none_are_refused(word, said):
    with pytest.raises(InputError, match=said):
        read_space([word], None, seed=0)


@pytest.mark.parametrize(
    "point",
    [
        {"a": "3", "b": "0.5"},
        {"a": "1", "b": "7"},
        {"a": "1", "b": "nan"},
        {"a": "1", "b": "${oc.env:HOME}"},
        {"a": "1"},
        {"a": "1", "b": "0.5", "hydra/launcher": "x"},
        {"b": "0.5", "a": "1"},
    ],
)
def test_a_foreign_point_is_none_of_the_space(point):
    space = read_space(["a=1,2", "b=interval(0,1)"], None, seed=0)
    assert space.holds({"a": "1", "b": "0.5"})
    assert not space.holds(point)


@pytest.mark.parametrize("text", ["2.5", "2.0", "2e0", "02", "-0.0", "5", "1" * 40, "\u0663", "2\n"])
def test_a_whole_interval_holds_whole_numbers_alone(text):
    (entry,) = read_space(["a=int(interval(1,4))"], None, seed=0).swept
    assert entry.holds("2")
    assert not entry.holds(text)
