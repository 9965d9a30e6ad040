"""Weights laid out for generation compute what the model computes, to their precision."""

import copy

import pytest
import torch
from torch import nn

from gpt_pretrain.decoding.scoring import token_logprobs
from gpt_pretrain.decoding.weights import HalfLinear, Int8Linear, for_generation
from tests.decoding.conftest import build


def relative_error(layer, linear, x):
    exact = linear(x) if linear.bias is None else linear(x) - linear.bias
    given = layer(x) if linear.bias is None else layer(x) - linear.bias
    return float((given - exact).norm() / exact.norm())


@pytest.mark.parametrize("rows", [(1, 1), (3, 5)])
@torch.inference_mode()
def test_a_layer_is_as_exact_as_its_bits(rows):
    torch.manual_seed(0)
    linear = nn.Linear(64, 96)
    x = torch.randn(*rows, 64)
    x[..., 7] *= 30  # activations of trained models have outliers
    rounded = copy.deepcopy(linear)
    rounded.weight.copy_(linear.weight.bfloat16().float())
    assert HalfLinear(linear)(x).shape == (*rows, 96)
    assert relative_error(HalfLinear(linear), rounded, x) < 1e-5
    assert relative_error(Int8Linear(linear), linear, x) < 0.01


@torch.inference_mode()
def test_two_digits_of_an_activation_are_as_good_as_bfloat16():
    torch.manual_seed(0)
    linear = nn.Linear(64, 96, bias=False)
    scales = linear.weight.abs().amax(1).div(127).bfloat16().float()[:, None]
    linear.weight.copy_((linear.weight / scales).round() * scales)  # now int8 loses nothing
    x = torch.randn(4, 64)
    x[:, 3] = 40.0
    assert relative_error(Int8Linear(linear), linear, x) < 2e-3
    assert torch.equal(Int8Linear(linear)(torch.zeros(1, 64)), torch.zeros(1, 96))


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-4), ("bfloat16", 0.1), ("int8", 0.1)])
def test_a_models_log_probabilities_stay_what_they_are(dtype, limit):
    model = build(vocab_size=600)
    token_ids = list(range(0, 600, 10))
    expected = torch.tensor(token_logprobs(model, token_ids))
    given = torch.tensor(token_logprobs(for_generation(copy.deepcopy(model), dtype), token_ids))
    assert (given.mean() - expected.mean()).abs() < limit
