"""Linear layers of narrower weights compute what the layer computes, to their precision."""

import copy

import pytest
import torch
from torch import nn

from gpt_pretrain.decoding.products import FEW_ROWS, PRODUCTS, HalfProduct, Int8Product


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
    assert HalfProduct(linear)(x).shape == (*rows, 96)
    assert relative_error(HalfProduct(linear), rounded, x) < 1e-5
    assert relative_error(Int8Product(linear), linear, x) < 0.01


@pytest.mark.parametrize("n_out", [96, 100, 7])
@torch.inference_mode()
def test_bytes_keep_activations_exact(n_out):
    torch.manual_seed(0)
    linear = nn.Linear(64, n_out)
    levels = torch.randint(-127, 128, (n_out, 64)).float()
    levels[:, 5] = 127.0  # so that 8 bits lose nothing
    linear.weight.copy_(levels * torch.linspace(0.01, 5.0, n_out)[:, None])
    x = torch.randn(4, 64)
    x[:, 3] = 1e4
    assert relative_error(Int8Product(linear), linear, x) < 1e-5


@torch.inference_mode()
def test_a_row_in_bytes_is_the_same_however_many_stand_beside_it():
    torch.manual_seed(0)
    layer, x = Int8Product(nn.Linear(64, 200)), torch.randn(3 * FEW_ROWS, 64)
    alone = torch.cat([layer(row[None]) for row in x])
    assert torch.equal(layer(x[:FEW_ROWS]), alone[:FEW_ROWS])
    assert torch.allclose(layer(x), alone, atol=1e-5)


@pytest.mark.parametrize("dtype", PRODUCTS)
@torch.inference_mode()
def test_a_product_keeps_every_shape(dtype):
    linear = nn.Linear(8, 5, bias=False)
    for shape in [(8,), (2, 8), (1, 1, 8), (2, 3, 8)]:
        x = torch.randn(shape)
        assert torch.allclose(PRODUCTS[dtype](linear)(x), linear(x), atol=0.02)
        assert PRODUCTS[dtype](linear)(x).shape == linear(x).shape
