"""Weights laid out for generation compute what the model computes, to their precision."""

import copy

import pytest
import torch
from torch import nn

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.layout import FEW_ROWS, PRODUCTS, HalfProduct, Int8Product, for_generation
from gpt_pretrain.decoding.loop import continue_tokens
from gpt_pretrain.decoding.scoring import token_logprobs
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
    assert HalfProduct(linear)(x).shape == (*rows, 96)
    assert relative_error(HalfProduct(linear), rounded, x) < 1e-5
    assert relative_error(Int8Product(linear), linear, x) < 0.01


@pytest.mark.parametrize("n_out", [96, 100, 7])
@torch.inference_mode()
def test_bytes_keep_activations_exact(n_out):
    torch.manual_seed(0)
    linear = nn.Linear(64, n_out)
    levels = torch.randint(0, 256, (n_out, 64)).float()
    levels[0::96], levels[1::96] = 0.0, 255.0  # so that 8 bits lose nothing
    linear.weight.copy_(levels * 0.01 - 1.0)
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


@pytest.mark.parametrize("dtype", PRODUCTS)
@pytest.mark.parametrize("n_prompts", [2, FEW_ROWS, FEW_ROWS + 1])
def test_prompts_of_one_length_give_in_a_batch_what_they_give_alone(dtype, n_prompts):
    model = for_generation(build(), dtype)
    prompts = [[5, 9, 2], [7, 7, 30], [60, 1, 1]] * 4
    config = DecodingConfig(temperature=0.0, max_new_tokens=6)
    rows = continue_tokens(model, prompts[:n_prompts], config)
    alone = [continue_tokens(model, [prompt], config)[0][0].token_ids for prompt in prompts[:3]]
    assert [row.token_ids for [row] in rows] == (alone * 4)[:n_prompts]


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-4), ("bfloat16", 0.1), ("int8", 0.1)])
def test_a_models_log_probabilities_stay_what_they_are(dtype, limit):
    model = build(vocab_size=600)
    token_ids = list(range(0, 600, 10))
    expected = torch.tensor(token_logprobs(model, token_ids))
    given = torch.tensor(token_logprobs(for_generation(copy.deepcopy(model), dtype), token_ids))
    assert (given.mean() - expected.mean()).abs() < limit


@pytest.mark.parametrize("dtype", PRODUCTS)
def test_a_model_laid_out_can_be_called_like_any_other(dtype):
    model = for_generation(build(), dtype)
    token_ids = torch.tensor([[5, 9, 2]])
    with torch.inference_mode():
        expected = model(token_ids)
    assert torch.equal(model(token_ids), expected)
    assert torch.equal(copy.deepcopy(model)(token_ids), expected)
