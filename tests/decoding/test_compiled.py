"""step.c beside torch: the same numbers, whatever the shapes, the neighbours and the threads."""

import copy
import math
import stat
import tempfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gpt_pretrain.config import DecodingConfig, ModelConfig
from gpt_pretrain.decoding import compiled
from gpt_pretrain.decoding.compiled import COMPILED, FEW_ROWS, CompiledBlocks, unusable
from gpt_pretrain.decoding.key_values import KVCache
from gpt_pretrain.decoding.layout import find_kernel, for_generation
from gpt_pretrain.decoding.loop import continue_tokens
from gpt_pretrain.decoding.products import PRODUCTS
from gpt_pretrain.errors import InputError
from tests.decoding.conftest import COMPILES, build

pytestmark = COMPILES
SHAPE = ModelConfig(vocab_size=61, context_length=64, emb_dim=32, n_heads=4, n_layers=2)


@pytest.fixture
def threads():
    """Sets how many threads there are; puts the number back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@settings(deadline=None)  # the first of all compiles
@given(
    dtype=st.sampled_from(sorted(COMPILED)),
    blocks=st.integers(1, 5),
    n_out=st.integers(1, 70),
    n_rows=st.integers(1, FEW_ROWS + 3),
    bias=st.booleans(),
    seed=st.integers(0, 2**20),
)
@torch.inference_mode()
def test_a_product_is_that_of_its_own_weights(dtype, blocks, n_out, n_rows, bias, seed):
    torch.manual_seed(seed)
    linear = nn.Linear(32 * blocks, n_out, bias=bias)
    x = torch.randn(n_rows, 32 * blocks)
    product = COMPILED[dtype](linear)
    wide = nn.Linear(32 * blocks, n_out, bias=bias, dtype=torch.float64)
    wide.load_state_dict(linear.state_dict() | {"weight": product.wide()})
    expected = wide(x.double())
    assert torch.allclose(product(x).double(), expected, atol=1e-4)
    alone = torch.cat([product(row[None]) for row in x[:FEW_ROWS]])
    assert torch.equal(product(x[:FEW_ROWS]), alone)


@torch.inference_mode()
def test_weights_are_as_exact_as_their_bits():
    linear = nn.Linear(64, 40)
    linear.weight[7] = 0
    linear.weight[8, 3] = 1000.0  # an outlier costs its own output only
    assert torch.equal(COMPILED["float32"](linear).wide(), linear.weight)
    assert torch.equal(COMPILED["bfloat16"](linear).wide(), linear.weight.bfloat16().float())
    step = linear.weight.abs().amax(1, keepdim=True) / 127
    assert ((COMPILED["int8"](linear).wide() - linear.weight).abs() <= 0.5001 * step).all()


@pytest.mark.parametrize("dtype", COMPILED)
@torch.inference_mode()
def test_it_holds_the_weights_that_torchs_product_holds(dtype):
    torch.manual_seed(0)
    linear, x = nn.Linear(96, 200), torch.randn(5, 96)
    assert torch.allclose(COMPILED[dtype](linear)(x), PRODUCTS[dtype](linear)(x), atol=1e-5)


@torch.inference_mode()
def test_numbers_that_lie_apart_are_brought_together():
    linear = nn.Linear(32, 8)
    expected = COMPILED["float32"](linear)(x := torch.randn(2, 32))
    linear.weight = nn.Parameter(linear.weight.t().contiguous().t())
    linear.bias = nn.Parameter(torch.stack([linear.bias, linear.bias], 1)[:, 0])
    for dtype in COMPILED:
        assert torch.allclose(COMPILED[dtype](linear)(x), expected, atol=0.05)
    assert torch.equal(COMPILED["float32"](linear)(x), expected)


@torch.inference_mode()
def test_float32_weights_are_the_models_own():
    linear = nn.Linear(32, 8)
    assert COMPILED["float32"](linear).weight.data_ptr() == linear.weight.data_ptr()


@pytest.mark.parametrize("dtype", COMPILED)
@torch.inference_mode()
def test_a_step_depends_on_no_thread_and_no_neighbour(dtype, threads):
    model = for_generation(build(), dtype, "c")
    assert isinstance(model.blocks[0], CompiledBlocks)
    lengths = [9, 4, 9, 1, 7]
    prompt = torch.randint(61, (5, 9), generator=torch.Generator().manual_seed(0))

    def after_prompts(rows):
        cache = KVCache(model, len(rows), 12)
        # One at a time, so that what is cached is the same.
        for at in range(9):
            model.features(prompt[rows, at : at + 1], cache)
            cache.advance([int(at < lengths[row]) for row in rows])
        return model.features(torch.full((len(rows), 1), 3), cache)

    threads(1)
    expected = after_prompts([0, 1, 2, 3, 4])
    for n_threads in (1, 2, 3):
        threads(n_threads)
        assert torch.equal(after_prompts([0, 1, 2, 3, 4]), expected)
        assert torch.equal(torch.cat([after_prompts([row]) for row in range(5)]), expected)


@torch.inference_mode()
def test_a_full_cache_takes_no_more():
    model = for_generation(build(), "float32", "c")
    cache = KVCache(model, 1, 2)
    for _ in range(2):
        model.features(torch.tensor([[5]]), cache)
        cache.advance([1])
    with pytest.raises(AssertionError):
        model.features(torch.tensor([[5]]), cache)


def test_a_model_in_bfloat16_is_widened_first():
    model = build().bfloat16()
    assert find_kernel(model, "float32", "auto", math.inf) == ("torch", None)
    with pytest.raises(InputError, match="float32"):
        find_kernel(model, "float32", "c", 1)
    config = DecodingConfig(temperature=0.0, max_new_tokens=6)
    expected = continue_tokens(copy.deepcopy(model).float(), [[5, 9]], config)
    found = continue_tokens(for_generation(model, "float32", "c"), [[5, 9]], config)
    assert found[0][0].token_ids == expected[0][0].token_ids


@pytest.mark.parametrize(("emb_dim", "n_heads"), [(48, 4), (32, 8)])
def test_odd_widths_are_left_to_torch(emb_dim, n_heads):
    config = ModelConfig(vocab_size=61, context_length=64, emb_dim=emb_dim, n_heads=n_heads, n_layers=2)
    assert "multiple" in (unusable(config) or "")


def test_why_nothing_was_compiled_is_one_line(monkeypatch, tmp_path):
    def reason(script):
        compiled._made.cache_clear()
        if script is not None:
            (tmp_path / "cc").write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / "cc").chmod(stat.S_IRWXU)
        return unusable(SHAPE) or ""

    assert unusable(SHAPE) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    try:
        assert "no C compiler" in reason(None)
        failing = "echo 'warning: x' >&2; echo 'cc: error: unknown option' >&2; exit 1"
        assert reason(failing).endswith("cc: error: unknown option")
        assert "exit code 3" in reason("exit 3")
        assert reason("echo 'ld: cannot find -lgomp' >&2; exit 1").endswith("cannot find -lgomp")
        assert "cannot be used" in reason("exit 0")  # and wrote nothing
        assert "cannot be used" in reason('while [ "$1" != -o ]; do shift; done; echo no library > "$2"')
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        assert "nowhere" in reason("exit 0")
    finally:
        compiled._made.cache_clear()
