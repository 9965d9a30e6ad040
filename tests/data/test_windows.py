"""Windows: the book's counts, each once an epoch whatever the ranks, whatever the size."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_pretrain.data.tokens import Tokens
from gpt_pretrain.data.windows import (
    Share,
    count_windows,
    evaluation_batch,
    mixed_windows,
    permute,
    read_windows,
    training_places,
    training_windows,
    window_shares,
    window_starts,
)
from gpt_pretrain.loss import IGNORED


@pytest.mark.parametrize(
    ("n_tokens", "context_length", "stride"),
    [
        (4612, 256, 256),
        (534, 256, 256),
        (256, 256, 256),
        (257, 256, 256),
        (1000, 12, 5),
        (9, 4, 10),
        (0, 4, 4),
    ],
)
def test_windows_are_counted_as_the_book_s_loop_does(n_tokens, context_length, stride):
    assert count_windows(n_tokens, context_length, stride) == len(range(0, n_tokens - context_length, stride))


def test_a_window_s_targets_are_its_inputs_one_later():
    inputs, targets = read_windows(Tokens([np.arange(100)]), np.array([0, 7]), 5)
    assert inputs.tolist() == [[0, 1, 2, 3, 4], [7, 8, 9, 10, 11]]
    assert targets.tolist() == [[1, 2, 3, 4, 5], [8, 9, 10, 11, 12]]


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**32), epoch=st.integers(0, 10**6))
def test_the_order_is_a_permutation(n, seed, epoch):
    assert np.sort(permute(np.arange(n), n, seed=seed, epoch=epoch)).tolist() == list(range(n))


@pytest.mark.parametrize("n", [2**40, 2**40 + 1, 10**12])
def test_the_order_of_a_corpus_too_large_for_memory_is_known_anywhere(n):
    places = np.arange(n - 1000, n)
    sent = permute(places, n, seed=1, epoch=0)
    assert len(set(sent.tolist())) == 1000
    assert sent.min() >= 0
    assert sent.max() < n


def test_the_order_differs_between_epochs_and_seeds_and_looks_drawn():
    n = 4096
    orders = [permute(np.arange(n), n, seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (orders[one] == orders[other]).sum() < 10  # one expected
    # Neighbours end up a third of the length apart, as two independent draws do.
    assert abs(np.abs(np.diff(orders[0])).mean() / n - 1 / 3) < 0.02


@settings(max_examples=150, deadline=None)
@given(
    n_windows=st.integers(1, 200),
    world_size=st.integers(1, 8),
    batch_size=st.integers(1, 9),
    epoch=st.integers(0, 4),
    seed=st.integers(0, 1000),
)
def test_all_ranks_together_see_each_window_once_an_epoch(n_windows, world_size, batch_size, epoch, seed):
    batch = world_size * batch_size
    first, last = epoch * n_windows, (epoch + 1) * n_windows  # places in the endless sequence
    seen = []
    for k in range(first // batch, -(-last // batch)):
        for rank in range(world_size):
            windows = training_windows(
                k,
                Share(rank=rank, world_size=world_size, batch_size=batch_size),
                n_windows=n_windows,
                seed=seed,
            )
            places = (k * world_size + rank) * batch_size + np.arange(batch_size)
            seen += windows[(places >= first) & (places < last)].tolist()
    assert sorted(seen) == list(range(n_windows))


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_any_number_of_ranks_sees_the_windows_that_one_sees(world_size):
    def windows(world_size, batch_size, k):
        shares = [
            training_windows(
                k,
                Share(rank=rank, world_size=world_size, batch_size=batch_size),
                n_windows=1000,
                seed=3,
            )
            for rank in range(world_size)
        ]
        return np.concatenate(shares).tolist()

    for k in (0, 5, 77, 200):
        assert windows(world_size, 24 // world_size, k) == windows(1, 24, k)


def test_many_batches_at_once_are_those_one_by_one():
    share, place = Share(rank=1, world_size=3, batch_size=4), {"n_windows": 50, "seed": 9}
    together = training_windows(np.arange(20), share, **place)
    assert together.tolist() == [training_windows(k, share, **place).tolist() for k in range(20)]


@settings(max_examples=100, deadline=None)
@given(
    n_windows=st.integers(1, 500),
    counts=st.lists(st.integers(1, 100), min_size=1, max_size=5),
    weights=st.lists(st.floats(0.01, 100), min_size=5, max_size=5),
)
def test_shares_add_up_and_are_within_one_of_their_proportion(n_windows, counts, weights):
    weights = weights[: len(counts)]
    shares = window_shares(n_windows, counts, weights)
    assert shares.sum() == n_windows
    assert all(abs(s - n_windows * w / sum(weights)) <= 1 for s, w in zip(shares, weights, strict=True))


def test_a_mixture_gives_each_source_its_share_and_no_window_again_before_all_others():
    counts, n_windows = [10, 40], 50
    shares = window_shares(n_windows, counts, [3, 2])
    assert shares.tolist() == [30, 20]
    share = Share(batch_size=5)
    batches = np.arange(20)  # two epochs
    windows = training_windows(batches, share, n_windows=n_windows, seed=0)
    epochs, _ = training_places(batches, share, n_windows=n_windows)
    sources, inside, passes = mixed_windows(windows, epochs, counts=counts, shares=shares, seed=0)
    assert Counter(sources[:10].ravel().tolist()) == {0: 30, 1: 20}
    assert set(Counter(inside[sources == 0].tolist()).values()) == {6}  # 60 draws of 10 windows
    assert set(Counter(inside[sources == 1].tolist()).values()) == {1}  # 40 draws of 40 windows
    assert len(Counter(inside[sources == 1].tolist())) == 40
    assert Counter(passes[sources == 0].tolist()) == dict.fromkeys(range(6), 10)
    assert set(passes[sources == 1].tolist()) == {0}


@settings(max_examples=200, deadline=None)
@given(
    context_length=st.integers(1, 20),
    stride=st.integers(1, 40),
    more=st.integers(1, 300),
    number=st.integers(0, 10**6),
)
def test_each_pass_begins_its_windows_elsewhere_and_stays_within_the_text(
    context_length, stride, more, number
):
    n_tokens = context_length + more
    windows = np.arange(count_windows(n_tokens, context_length, stride))
    text = {"stride": stride, "n_tokens": n_tokens, "context_length": context_length}
    first = window_starts(windows, np.zeros_like(windows), **text)
    assert first.tolist() == (windows * stride).tolist()
    starts = window_starts(windows, np.full_like(windows, number), **text)
    assert 0 <= starts[0] < stride
    assert starts[-1] + context_length + 1 <= n_tokens
    assert (np.diff(starts)[:-1] == stride).all()
    assert (np.diff(starts) > 0).all()  # none twice


def test_some_passes_spread_their_windows_over_the_stride():
    starts = window_starts(np.zeros(8, np.int64), np.arange(8), stride=128, n_tokens=9999, context_length=128)
    gaps = np.diff([*sorted(starts.tolist()), 128])
    assert 8 <= gaps.min() <= gaps.max() <= 32


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_evaluation_counts_each_token_once_at_any_number_of_ranks(world_size):
    tokens, context_length, batch_size = Tokens([np.arange(95)]), 4, 2
    n_windows = count_windows(95, context_length, context_length)
    n_batches = -(-n_windows // (world_size * batch_size))
    counted = []
    for k in range(n_batches):
        for rank in range(world_size):
            inputs, targets = evaluation_batch(
                tokens,
                k,
                Share(rank=rank, world_size=world_size, batch_size=batch_size),
                context_length=context_length,
            )
            assert inputs.shape == targets.shape == (batch_size, context_length)
            counted += targets[targets != IGNORED].tolist()
    assert sorted(counted) == list(range(1, n_windows * context_length + 1))
