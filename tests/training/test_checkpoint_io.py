"""Whatever a callback keeps comes back as it was, or is left out with a warning."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt_pretrain.foreign import json_text, parse_json
from gpt_pretrain.training import checkpoint_io
from gpt_pretrain.training.checkpoint_io import from_plain, to_plain

numbers = st.floats() | st.integers(-(2**70), 2**70)
tensors = st.sampled_from(
    [
        torch.empty(0, 3),
        torch.tensor(2.5),
        torch.tensor([[1.5, -math.inf], [math.nan, -0.0]]),
        torch.tensor([0.1, 3.0], dtype=torch.bfloat16),
        torch.tensor([2**62 + 1, -1]),
        torch.tensor([[True], [False]]),
        torch.rand(3, 4, dtype=torch.float64).T,
    ]
)
# Names that stand for something in a file among them.
names = st.sampled_from(["number", "tensor", "dtype", "shape", "as tuple", "as pairs", "a"])
keys = names | st.text(max_size=2) | st.integers() | st.booleans() | st.none() | st.tuples(st.integers())
words = st.sampled_from(["NaN", "Infinity", "first", "float32", "12"])
states = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=3) | words | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(names, inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        alike = isinstance(other, torch.Tensor) and (one.dtype, one.shape) == (other.dtype, other.shape)
        return alike and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=False)
        return len(one) == len(other) and all(same(mine, its) for mine, its in pairs)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


def stored(**states):
    """As they come back from a file."""
    plain = parse_json(json_text(to_plain({}, states)))["callbacks"]
    return {name: from_plain(state) for name, state in plain.items()}


@given(states)
def test_a_state_comes_back_as_it_was(state):
    assert same(stored(own=state), {"own": state})


@pytest.mark.parametrize(
    "state",
    [
        {"number": "first"},
        {"x": {"number": "12"}},
        {"tensor": [1, 2], "dtype": "float32"},
        {"tensor": [1, 2], "dtype": "float32", "shape": 3},
        {1: 2.0},
        (3, 4),
        torch.empty(0, 3),
        {"as tuple": 3},
        {"as pairs": [[1, 2]]},
    ],
    ids=repr,
)
def test_what_looks_like_something_else_comes_back_as_it_was(state):
    assert same(stored(own=state), {"own": state})


def endless() -> list:
    own: list = []
    own.append(own)
    return own


@pytest.mark.parametrize(
    "state",
    [object(), {1, 2}, torch.zeros(2, dtype=torch.complex64), torch.zeros(2, device="meta"), endless()],
    ids=["an object", "a set", "complex", "no numbers", "endless"],
)
def test_what_cannot_come_back_is_left_out_with_a_warning(state, caplog):
    assert stored(own=state, other=1) == {"other": 1}
    assert "the state of own is not saved" in caplog.text


def test_a_name_that_is_no_text_is_left_out_with_a_warning(caplog):
    assert to_plain({1: 2}, {})["callbacks"] == {}
    assert "the state of 1 is not saved" in caplog.text


@pytest.mark.parametrize("n", [900_000, 1_000_001])
def test_what_is_saved_can_be_read_however_many_have_a_large_state(n, caplog):
    large = torch.zeros(n, dtype=torch.int64)
    found = stored(first=large, second=large, other={"a": 1})
    assert set(found) == ({"first", "other"} if n < 1_000_000 else {"other"})
    assert "the state of second is not saved" in caplog.text


def test_a_state_of_many_texts_finds_no_room_and_takes_none_from_smaller_ones(caplog, monkeypatch):
    monkeypatch.setattr(checkpoint_io, "LARGEST", 100)
    assert stored(own="x" * 99, other=1) == {"other": 1}
    assert "the state of own is not saved" in caplog.text


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ('{"number": "NaN"}', math.nan),
        ('{"tensor": Infinity, "dtype": "float32"}', torch.tensor(math.inf)),
        (
            '{"tensor": [[1, {"number": "-Infinity"}]], "dtype": "float64"}',
            torch.tensor([[1, -math.inf]]).double(),
        ),
        ('{"number": "first"}', {"number": "first"}),
    ],
)
def test_a_state_of_an_earlier_version_is_read(text, state):
    assert same(from_plain(json.loads(text)), state)
