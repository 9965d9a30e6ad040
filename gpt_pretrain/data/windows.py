"""Windows over tokens, and which of them a batch holds: pure functions of seed, batch number and rank.

A window is context_length + 1 tokens: inputs are all but its last, targets all but its first. The training
data is one endless sequence of windows, epoch after epoch, each epoch in an order of its own. A batch takes
the next ones of it, so every window comes once an epoch at any number of ranks, and any batch is known
without those before it.
"""

import hashlib

import numpy as np

from gpt_pretrain.loss import IGNORED


def count_windows(n_tokens: int, context_length: int, stride: int) -> int:
    """Windows that start every `stride` tokens and lie wholly inside `n_tokens` tokens."""
    return max(0, -(-(n_tokens - context_length) // stride))


def training_windows(
    batch: int, *, rank: int, world_size: int, batch_size: int, n_windows: int, seed: int
) -> np.ndarray:
    """Window numbers (B,) of one rank's share of micro-batch `batch`."""
    first = (batch * world_size + rank) * batch_size
    places = np.arange(first, first + batch_size)
    epochs, places = np.divmod(places, n_windows)
    windows = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        windows[here] = permute(places[here], n_windows, seed=seed, epoch=int(epoch))
    return windows


def permute(places: np.ndarray, n: int, *, seed: int, epoch: int) -> np.ndarray:
    """Where a pseudo-random permutation of 0..n-1, drawn by (seed, epoch), sends `places`; memory does not
    grow with n.

    A four-round Feistel network permutes the numbers of an even count of bits; a result at or above n goes
    through again until it falls below (cycle walking, Black & Rogaway 2002).
    """
    half_bits = max(1, (max(1, n - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half_bits) - 1)
    digest = hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=32).digest()
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


def gather(tokens: np.ndarray, starts: np.ndarray, context_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (B, T), int64, of the windows that begin at `starts` (B,)."""
    window = tokens[starts[:, None] + np.arange(context_length + 1)].astype(np.int64)
    return window[:, :-1], window[:, 1:]


def evaluation_batch(
    tokens: np.ndarray, batch: int, *, rank: int, world_size: int, batch_size: int, context_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (B, T) of one rank's share of evaluation batch `batch`: windows in order, end to
    end.

    Every rank gets as many batches of the same shape; where the windows have run out, targets are `IGNORED`.
    """
    n_windows = count_windows(len(tokens), context_length, context_length)
    windows = (batch * world_size + rank) * batch_size + np.arange(batch_size)
    inputs, targets = gather(tokens, np.minimum(windows, n_windows - 1) * context_length, context_length)
    counted = (windows < n_windows)[:, None]  # (B, 1)
    return inputs, np.where(counted, targets, IGNORED)


def _mix(x: np.ndarray) -> np.ndarray:
    """Spread every bit over the word (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
