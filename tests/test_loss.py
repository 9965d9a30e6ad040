import math

import numpy as np
import pytest
import torch

from gpt_pretrain import loss as loss_module
from gpt_pretrain.loss import (
    IGNORED,
    bits_per_byte,
    head_loss,
    head_loss_in_place,
    next_token_loss,
    perplexity,
    summed_token_loss,
)


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


@pytest.mark.parametrize("multiple", [1, 8, 64])
@pytest.mark.parametrize("n_words", [7, 8])
@pytest.mark.parametrize("part", [2**24, 20, 1])  # logits at a time: all, two rows, one row
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", [head_loss, head_loss_in_place])
def test_every_way_to_a_loss_has_the_value_and_the_gradients_of_torchs(
    monkeypatch, way, part, dtype, n_words, multiple
):
    monkeypatch.setattr(loss_module, "PART", part)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 4, generator=generator)
    weight = torch.randn(n_words, 4, generator=generator)
    targets = torch.tensor([[0, n_words - 1, IGNORED], [3, 3, 5]])
    results = []
    for loss_of in (lambda x, w, t: way(x, w, t, multiple), lambda x, w, t: next_token_loss(x @ w.T, t)):
        x, w = features.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            loss = loss_of(x, w, targets)
        (3 * loss).backward()
        assert (loss.dtype, x.grad.dtype, w.grad.dtype) == (torch.float32,) * 3
        results.append((loss.detach(), x.grad, w.grad))
    for mine, torchs in zip(*results, strict=True):
        scale = torchs.abs().max()
        assert (mine - torchs).abs().max() < (1e-5 if dtype is torch.float32 else 2e-2) * scale


@pytest.mark.parametrize("multiple", [1, 64])
@pytest.mark.parametrize("way", [head_loss, head_loss_in_place])
def test_a_loss_stands_what_exp_does_not(way, multiple):
    x, w = torch.tensor([[[1.0], [1.0]]]), torch.tensor([[300.0], [0.0], [-300.0]])
    assert way(x, w, torch.tensor([[0, 2]]), multiple).item() == 300
    assert next_token_loss(x @ w.T, torch.tensor([[0, 2]])).item() == 300


def test_perplexity_of_a_uniform_guess_is_the_number_of_choices():
    assert perplexity(math.log(50257)) == pytest.approx(50257)
    assert perplexity(1e6) == math.inf


def test_one_bit_for_each_byte():
    assert bits_per_byte(4 * math.log(2), bytes_per_token=4) == pytest.approx(1)


def test_tokens_that_stand_for_no_text_cost_infinite_bits_a_byte():
    assert bits_per_byte(4.0, bytes_per_token=0) == math.inf
