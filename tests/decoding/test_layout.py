"""A model laid out for generation writes what the model writes, whatever its weights and its kernel."""

import copy
import math

import pytest
import torch

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding import compiled, layout
from gpt_pretrain.decoding.compiled import FEW_ROWS
from gpt_pretrain.decoding.key_values import KVCache
from gpt_pretrain.decoding.layout import find_kernel, for_generation
from gpt_pretrain.decoding.loop import continue_tokens
from gpt_pretrain.decoding.products import PRODUCTS
from gpt_pretrain.decoding.scoring import token_logprobs
from gpt_pretrain.errors import ArtifactError, InputError
from tests.decoding.conftest import COMPILES, KERNELS, build

pytestmark = pytest.mark.parametrize("kernel", KERNELS)
WAYS = {
    "greedy": {"temperature": 0.0},
    "drawn": {"temperature": 1.3, "top_k": 20, "num_return_sequences": 3},
    "beam": {"temperature": 0.0, "num_beams": 4, "num_return_sequences": 2},
    "contrastive": {"top_k": 4, "penalty_alpha": 0.6},
    "sliding": {"temperature": 0.0, "slide": 5},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("context_length", [12, 64])
def test_every_strategy_writes_in_float32_what_the_model_writes(kernel, way, context_length):
    model = build(context_length=context_length)
    prompts = [[5, 9, 2], [7], [60, 1, 1, 8, 30], [7, 7, 30]]
    config = DecodingConfig(max_new_tokens=16, **WAYS[way])
    expected = continue_tokens(model, prompts, config)
    found = continue_tokens(for_generation(copy.deepcopy(model), "float32", kernel), prompts, config)
    for rows, others in zip(found, expected, strict=True):
        assert [row.token_ids for row in rows] == [row.token_ids for row in others]
        logprobs = [torch.tensor([row.logprobs for row in each]) for each in (rows, others)]
        assert torch.allclose(*logprobs, atol=1e-4)


@pytest.mark.parametrize("dtype", PRODUCTS)
@pytest.mark.parametrize("n_prompts", [2, 5, FEW_ROWS, FEW_ROWS + 1])
def test_prompts_of_one_length_give_in_a_batch_what_they_give_alone(kernel, dtype, n_prompts):
    model = for_generation(build(), dtype, kernel)
    prompts = [[5, 9, 2], [7, 7, 30], [60, 1, 1]] * 6
    config = DecodingConfig(temperature=0.0, max_new_tokens=6)
    rows = continue_tokens(model, prompts[:n_prompts], config)
    alone = [continue_tokens(model, [prompt], config)[0][0].token_ids for prompt in prompts[:3]]
    assert [row.token_ids for [row] in rows] == (alone * 6)[:n_prompts]


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-4), ("bfloat16", 0.1), ("int8", 0.1)])
def test_a_models_log_probabilities_stay_what_they_are(kernel, dtype, limit):
    model = build(vocab_size=600)
    token_ids = list(range(0, 600, 10))
    expected = torch.tensor(token_logprobs(model, token_ids))
    given = torch.tensor(token_logprobs(for_generation(copy.deepcopy(model), dtype, kernel), token_ids))
    assert (given.mean() - expected.mean()).abs() < limit


@pytest.mark.parametrize("dtype", PRODUCTS)
@torch.inference_mode()
def test_token_by_token_it_says_what_it_says_of_all_at_once(kernel, dtype):
    model = for_generation(build(), dtype, kernel)
    token_ids = torch.randint(61, (3, 40), generator=torch.Generator().manual_seed(1))
    expected = model.features(token_ids)
    cache = KVCache(model, 3, 40)
    for at in range(40):
        found = model.features(token_ids[:, at : at + 1], cache)
        assert torch.allclose(found[:, 0], expected[:, at], atol=2e-4, rtol=1e-4)
        cache.advance([1, 1, 1])


@pytest.mark.parametrize("dtype", PRODUCTS)
def test_a_model_laid_out_can_be_called_like_any_other(kernel, dtype):
    model = for_generation(build(), dtype, kernel)
    token_ids = torch.tensor([[5, 9, 2]])
    with torch.inference_mode():
        expected = model(token_ids)
    assert torch.equal(model(token_ids), expected)
    assert torch.equal(copy.deepcopy(model)(token_ids), expected)
    config = DecodingConfig(temperature=0.0, max_new_tokens=6)
    written = continue_tokens(model, [[5]], config)
    again = continue_tokens(copy.deepcopy(model), [[5]], config)
    assert written == again


@pytest.mark.parametrize("dtype", PRODUCTS)
def test_weights_that_are_no_numbers_are_told(kernel, dtype):
    model = build()
    with torch.no_grad():
        model.blocks[1].ff.expand.weight[3, 5] = float("nan")
    with pytest.raises(ArtifactError):
        continue_tokens(for_generation(model, dtype, kernel), [[5, 9, 2]], DecodingConfig(max_new_tokens=6))


@COMPILES
def test_auto_compiles_where_it_is_worth_the_time_and_says_so(kernel, monkeypatch):
    model = build()
    enough = layout.WORTH / model.n_params()
    assert find_kernel(model, "int8", "auto", 0.99 * enough) == ("torch", None)
    assert find_kernel(model, "int8", "torch", math.inf) == ("torch", None)
    found, said = find_kernel(model, "float32", "auto", 1.01 * enough)
    assert found == "c"
    assert said is not None
    assert "kernel=torch" in said
    monkeypatch.setattr(compiled, "_made", lambda: "there is no C compiler")
    found, said = find_kernel(model, "float32", "auto", math.inf)
    assert found == "torch"
    assert said is not None
    assert said.endswith("there is no C compiler")
    with pytest.raises(InputError, match="kernel=c: there is no C compiler"):
        find_kernel(model, "float32", "c", 1)


@COMPILES
def test_bytes_need_a_kernel_of_some_kind(kernel, monkeypatch):
    monkeypatch.setattr(layout, "HAS_FBGEMM", False)
    model = build()
    assert find_kernel(model, "int8", "auto", 1)[0] == "c"  # however small
    if kernel == "c":
        for_generation(model, "int8", kernel)
    else:
        with pytest.raises(InputError, match="C compiler"):
            for_generation(model, "int8", kernel)
