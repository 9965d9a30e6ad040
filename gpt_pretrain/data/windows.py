"""Windows over tokens, and which of them a batch holds: pure functions of seed, batch number and rank.

A window is context_length + 1 tokens: inputs are all but its last, targets all but its first. Windows begin
every `stride` tokens: at the context length they lie end to end, each token is a target once an epoch and
documents, with an end-of-text token between them, are packed; below it they overlap; above it tokens between
them are left out. The training data is one endless sequence of windows, epoch after epoch, each epoch in an
order of its own and, where a text is used whole, cut at places of its own. A batch takes the next ones of it,
so every window comes once an epoch at any number of ranks, and any batch is known without those before it.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gpt_pretrain.data.tokens import Tokens

GOLDEN = (5**0.5 - 1) / 2  # its multiples lie evenly between whole numbers, however many there are


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which sequences of every batch are one rank's."""

    rank: int = 0
    world_size: int = 1
    batch_size: int  # sequences per device and micro-step

    def places(self, batch: int | np.ndarray) -> np.ndarray:
        """Places (B,) of its part of a batch in the endless sequence of windows; (N, B) of N batches."""
        first = (np.asarray(batch, np.int64) * self.world_size + self.rank) * self.batch_size
        return first[..., None] + np.arange(self.batch_size)


def count_windows(n_tokens: int, context_length: int, stride: int) -> int:
    """Windows that start every `stride` tokens and lie wholly inside `n_tokens` tokens."""
    return max(0, -(-(n_tokens - context_length) // stride))


def training_windows(batch: int | np.ndarray, share: Share, *, n_windows: int, seed: int) -> np.ndarray:
    """Window numbers (B,) of one rank's share of micro-batch `batch`; (N, B) of N batches at once."""
    epochs, places = training_places(batch, share, n_windows=n_windows)
    windows = np.empty(places.shape, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        windows[here] = permute(places[here], n_windows, seed=seed, epoch=int(epoch))
    return windows


def training_places(
    batch: int | np.ndarray, share: Share, *, n_windows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Epoch and place in the epoch's order, (..., B), of what a rank sees in micro-batch `batch`."""
    return np.divmod(share.places(batch), n_windows)


def window_shares(n_windows: int, counts: Sequence[int], weights: Sequence[float]) -> np.ndarray:
    """How many of an epoch's `n_windows` windows each source gives: in proportion to its weight, rounded so
    that they add up (largest remainder). A source without windows gives none.
    """
    wanted = np.array([weight * (count > 0) for count, weight in zip(counts, weights, strict=True)], float)
    exact = n_windows * wanted / wanted.sum()
    shares = np.floor(exact).astype(np.int64)
    largest = np.argsort(shares - exact, kind="stable")
    shares[largest[: n_windows - int(shares.sum())]] += 1
    return shares


def mixed_windows(
    windows: np.ndarray, epochs: np.ndarray, *, counts: Sequence[int], shares: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, window in it and pass over it for numbers in a mixture's epoch, of `shares` windows a source.

    Each source's windows come in passes, each pass in an order of its own, and passes go on from epoch to
    epoch: no window comes again before all others of its source have come.
    """
    ends = np.cumsum(shares)
    sources = np.searchsorted(ends, windows, side="right")
    inside, passes = np.empty_like(windows), np.empty_like(windows)
    for source in np.unique(sources):
        here = sources == source
        number = epochs[here] * shares[source] + windows[here] - (ends[source] - shares[source])
        passes[here], places = np.divmod(number, counts[source])
        picked = np.empty_like(places)
        for each in np.unique(passes[here]):
            same = passes[here] == each
            own_seed = seed + ((int(source) + 1) << 64)
            picked[same] = permute(places[same], counts[source], seed=own_seed, epoch=int(each))
        inside[here] = picked
    return sources, inside, passes


def window_starts(
    windows: np.ndarray,
    passes: np.ndarray,
    *,
    stride: int,
    n_tokens: int | np.ndarray,
    context_length: int,
) -> np.ndarray:
    """Tokens at which windows begin in a text of `n_tokens`.

    From pass to pass they are shifted within the stride, spread by the golden ratio: a window that comes
    again just as it was is soon learned by heart. One that would reach beyond the text ends with it.
    """
    shifts = (passes * GOLDEN % 1 * stride).astype(np.int64)
    return np.minimum(windows * stride + shifts, n_tokens - context_length - 1)


def permute(places: np.ndarray, n: int, *, seed: int, epoch: int) -> np.ndarray:
    """Where a permutation of 0..n-1, drawn by (seed, epoch), sends `places`; memory does not grow with n.

    A four-round Feistel network permutes the numbers of an even count of bits; a result at or above n goes
    through again until it falls below (cycle walking, Black & Rogaway 2002).
    """
    half_bits = max(1, (max(1, n - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half_bits) - 1)
    digest = hashlib.blake2b(f"order/{seed}/{epoch}".encode(), digest_size=32).digest()
    round_keys = np.frombuffer(digest, np.uint64)
    result = places.astype(np.uint64)
    outside = np.ones(len(result), bool)
    while outside.any():
        walking = result[outside]
        left, right = walking >> np.uint64(half_bits), walking & mask
        for key in round_keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        result[outside] = (left << np.uint64(half_bits)) | right
        outside = result >= n
    return result.astype(np.int64)


def read_windows(
    tokens: Tokens | np.ndarray, starts: np.ndarray, context_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (B, T), int64, of the windows that begin at `starts` (B,)."""
    if isinstance(tokens, np.ndarray):
        tokens = Tokens([tokens])
    window = tokens.stretches(starts, context_length + 1)
    return window[:, :-1], window[:, 1:]


def evaluation_batch(
    tokens: Tokens | np.ndarray, batch: int, share: Share, *, context_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (B, T) of a rank's share of evaluation batch `batch`: windows lie end to end."""
    n_windows = count_windows(len(tokens), context_length, context_length)
    end_to_end = partial(np.multiply, context_length)
    return batch_in_order(
        tokens, batch, share, end_to_end, n_windows=n_windows, context_length=context_length
    )


def batch_in_order(
    tokens: Tokens | np.ndarray,
    batch: int,
    share: Share,
    starts: Callable[[np.ndarray], np.ndarray],
    *,
    n_windows: int,
    context_length: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (B, T) of a rank's share of batch `batch`: of `n_windows`, which begin at `starts`.

    Every rank gets as many batches of the same shape; where the windows have run out, targets are `IGNORED`.
    """
    from gpt_pretrain.loss import IGNORED  # brings torch, which the other functions do without

    windows = share.places(batch)
    last = np.minimum(windows, n_windows - 1)  # beyond the last one: any, it is not counted
    inputs, targets = read_windows(tokens, starts(last), context_length)
    counted = (windows < n_windows)[:, None]  # (B, 1)
    return inputs, np.where(counted, targets, IGNORED)


def _mix(x: np.ndarray) -> np.ndarray:
    """Spread every bit over the word (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
