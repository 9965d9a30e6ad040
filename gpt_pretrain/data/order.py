"""Where the windows of every training batch begin, worked out for many batches at once."""

import numpy as np

from gpt_pretrain.data.corpus import Corpus
from gpt_pretrain.data.windows import (
    Share,
    count_windows,
    mixed_windows,
    training_places,
    training_windows,
    window_shares,
    window_starts,
)

BLOCK = 64  # batches: numpy's own cost for a call is as high for one as for all of them


class WindowOrder:
    """Batch k of this rank, for any k; only the block that k lies in is kept."""

    def __init__(
        self,
        corpus: Corpus,
        *,
        share: Share,
        n_windows: int,
        context_length: int,
        stride: int,
        seed: int,
    ) -> None:
        parts = corpus.trained
        self.counts = [count_windows(len(part.train), context_length, stride) for part in parts]
        self.lengths = np.array([len(part.train) for part in parts])
        self.first_tokens = np.cumsum([0, *self.lengths[:-1]])
        self.weights = [part.weight for part in parts]
        self.share, self.n_windows, self.seed = share, n_windows, seed
        self.stride, self.context_length = stride, context_length
        self.is_shifted = n_windows >= sum(self.counts)  # not a few windows, to be learned by heart
        self._block, self._starts = -1, np.empty(0, np.int64)

    def starts(self, batch: int) -> np.ndarray:
        """Token (B,) of corpus.train at which each window of the batch begins."""
        block, row = divmod(batch, BLOCK)
        if block != self._block:
            self._block, self._starts = block, self._compute(block * BLOCK + np.arange(BLOCK))
        return self._starts[row]

    def first_epoch(self, windows: np.ndarray) -> np.ndarray:
        """Token at which each of the first epoch's windows begins, by their numbers: not permuted."""
        return self._starts_of(windows, np.zeros_like(windows))

    def _compute(self, batches: np.ndarray) -> np.ndarray:
        windows = training_windows(batches, self.share, n_windows=self.n_windows, seed=self.seed)
        epochs, _ = training_places(batches, self.share, n_windows=self.n_windows)
        return self._starts_of(windows, epochs)

    def _starts_of(self, windows: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        sources, passes = np.zeros_like(windows), epochs
        if len(self.counts) > 1:
            shares = window_shares(self.n_windows, self.counts, self.weights)
            sources, windows, passes = mixed_windows(
                windows, epochs, counts=self.counts, shares=shares, seed=self.seed
            )
        return self.first_tokens[sources] + window_starts(
            windows,
            passes * self.is_shifted,
            stride=self.stride,
            n_tokens=self.lengths[sources],
            context_length=self.context_length,
        )
