import math

import numpy as np
import pytest
import torch

from gpt_pretrain.loss import IGNORED, bits_per_byte, next_token_loss, perplexity, summed_token_loss


def reference(logits, targets):
    """Mean of -log softmax, in numpy's double precision."""
    losses = []
    for row, target in zip(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), strict=True):
        if target != IGNORED:
            losses.append(np.log(np.exp(row - row.max()).sum()) + row.max() - row[target])
    return float(np.mean(losses))


def test_loss_is_the_mean_negative_log_probability_of_the_targets():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(2, 3, 7)), rng.integers(0, 7, (2, 3))
    assert next_token_loss(torch.tensor(logits), torch.tensor(targets)).item() == pytest.approx(
        reference(logits, targets), rel=1e-6
    )


def test_ignored_targets_weigh_nothing_and_batches_add_up_by_tokens():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 4, 7))
    targets = np.array([[1, 2, 3, 4], [5, IGNORED, IGNORED, IGNORED]])
    sums = [
        summed_token_loss(torch.tensor(logits[row : row + 1]), torch.tensor(targets[row : row + 1]))
        for row in (0, 1)
    ]
    mean = sum(float(total) for total, _ in sums) / sum(int(count) for _, count in sums)
    assert [int(count) for _, count in sums] == [4, 1]
    assert mean == pytest.approx(reference(logits, targets), rel=1e-6)


def test_perplexity_of_a_uniform_guess_is_the_number_of_choices():
    assert perplexity(math.log(50257)) == pytest.approx(50257)
    assert perplexity(1e6) == math.inf


def test_one_bit_for_each_byte():
    assert bits_per_byte(4 * math.log(2), bytes_per_token=4) == pytest.approx(1)
