"""Tokens in many places read as if they lay in one array."""

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpt_pretrain.data.tokens import Span, Tokens


@given(sizes=st.lists(st.integers(0, 9), max_size=6), cut=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_parts_read_cut_and_joined_are_those_of_one_array(sizes, cut):
    whole = np.arange(sum(sizes), dtype=np.uint16)
    parts = np.split(whole, np.cumsum(sizes)[:-1]) if sizes else []
    tokens = Tokens(list(parts))
    start, stop = (min(place, len(whole)) for place in sorted(cut))
    assert len(tokens) == len(whole)
    assert tokens[start:stop].tolist() == whole[start:stop].tolist()
    assert tokens.cut(start, stop)[:].tolist() == whole[start:stop].tolist()
    assert (tokens.cut(0, start) + tokens.cut(start, len(whole)))[:].tolist() == whole.tolist()


def test_files_are_read_from_their_offset_and_a_copy_in_another_process_maps_them_anew(tmp_path):
    np.arange(100, dtype="<u2").tofile(tmp_path / "a.bin")
    np.arange(1000, 1100, dtype="<u4").tofile(tmp_path / "b.bin")
    spans = [
        Span(file=tmp_path / "a.bin", dtype="<u2", n=50, offset=100),
        Span(file=tmp_path / "b.bin", dtype="<u4", n=100),
    ]
    tokens = Tokens(list(spans))
    expected = [*range(50, 100), *range(1000, 1100)]
    assert tokens[:].tolist() == expected
    assert tokens.cut(40, 60)[:].tolist() == expected[40:60]
    assert tokens.stretches(np.array([0, 45]), 10).tolist() == [expected[0:10], expected[45:55]]
    copied = pickle.dumps(tokens)
    assert len(copied) < 2000  # the map's address, not its content
    assert pickle.loads(copied)[:].tolist() == expected
