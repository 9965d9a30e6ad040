"""Products of eight bits, against the formula over the same rounded numbers in double precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from gpt_pretrain.model import Linear
from gpt_pretrain.training.float8 import MULTIPLE, float8_linear


def rounded(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Where a tensor comes to lie with a scale that makes its largest number the type's largest."""
    scale = (x.abs().max() / torch.finfo(dtype).max).clamp(min=1e-12)
    return (x / scale).to(dtype).double() * scale.double()


@settings(max_examples=60, deadline=None)
@given(
    sides=st.tuples(*[st.integers(1, 4)] * 3),
    size=st.sampled_from([1e-6, 1.0, 3e4]),
    bias=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_a_product_and_its_gradients_are_those_of_rounded_factors(sides, size, bias, seed):
    rows, n_in, n_out = (MULTIPLE * side for side in sides)
    generator = torch.Generator().manual_seed(seed)
    x, weight, into = (
        size * torch.randn(*shape, generator=generator)
        for shape in ((2, rows, n_in), (n_out, n_in), (2, rows, n_out))
    )
    added = torch.randn(n_out, generator=generator) if bias else None
    x, weight = x.requires_grad_(), weight.requires_grad_()
    result = float8_linear(x, weight, added)
    result.backward(into)
    narrow_x, narrow_weight = (rounded(each.detach(), torch.float8_e4m3fn) for each in (x, weight))
    narrow_into = rounded(into, torch.float8_e5m2)
    wanted = F.linear(narrow_x, narrow_weight, None if added is None else added.double())
    for mine, theirs in (
        (result.detach(), wanted),
        (x.grad, narrow_into @ narrow_weight),
        (weight.grad, narrow_into.flatten(0, 1).T @ narrow_x.flatten(0, 1)),
    ):
        assert mine.dtype == torch.float32
        assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_nothing_but_zeros_stays_so():
    x, weight = torch.zeros(16, 16, requires_grad=True), torch.zeros(16, 16, requires_grad=True)
    float8_linear(x, weight, None).sum().backward()
    assert not x.grad.any()
    assert not weight.grad.any()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_not_hidden(number):
    """A run must see that it has diverged."""
    x = torch.ones(16, 16)
    x[3, 4] = number
    assert not float8_linear(x, torch.ones(16, 16), None)[3].isfinite().any()


def test_a_layer_is_rounded_in_training_alone_in_the_type_that_autocast_multiplies_in():
    layer, x = Linear(32, 16), torch.randn(4, 16, 32)
    exact = layer(x)
    layer.trained_by = float8_linear
    assert 0 < (layer(x) - exact).abs().max() < 0.2
    assert torch.equal(layer.eval()(x), exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.train()(x).dtype == torch.bfloat16
