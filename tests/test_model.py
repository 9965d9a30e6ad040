import math
from dataclasses import replace

import pytest
import torch

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import ModelConfig, TrainConfig, resolve_model
from gpt_pretrain.loss import head_loss, head_loss_in_place, next_token_loss
from gpt_pretrain.model import CausalSelfAttention, Dropout, GPTModel

SMALL = ModelConfig(vocab_size=11, context_length=6, emb_dim=8, n_heads=2, n_layers=2)


def shape_of(option: str) -> ModelConfig:
    settings = compose("train", TrainConfig, [f"model={option}"]).model
    return resolve_model(settings, read=None, tokenizer_vocab_size=50257)


def test_no_logit_depends_on_a_later_token():
    torch.manual_seed(0)
    model = GPTModel(SMALL).eval()
    embedded = model.tok_emb(torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])).detach().requires_grad_()
    model.tok_emb.forward = lambda ids: embedded
    logits = model(torch.zeros(2, 5, dtype=torch.long))
    for place in range(5):
        (gradient,) = torch.autograd.grad(logits[:, place].sum(), embedded, retain_graph=True)
        seen = gradient.abs().sum(-1) > 0  # (B, T)
        assert seen.tolist() == [[other <= place for other in range(5)]] * 2


def test_attention_equals_the_formula():
    torch.manual_seed(0)
    attention = CausalSelfAttention(SMALL).eval()
    x = torch.randn(2, 5, 8)
    queries, keys, values = attention.qkv(x).split(8, dim=-1)
    heads = []
    for head in range(2):
        q, k, v = (part[..., head * 4 : head * 4 + 4] for part in (queries, keys, values))
        scores = q @ k.transpose(1, 2) / math.sqrt(4)
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
        heads.append(scores.softmax(-1) @ v)
    expected = attention.out_proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(x), expected, atol=1e-6, rtol=1e-5)
    attention.train().by_products = True
    torch.testing.assert_close(attention(x), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("option", "count"),
    [
        ("mini", 7_242_624),  # which the README says of the default run
        ("gpt2_small", 124_439_808),
        ("gpt2_medium", 354_823_168),
        ("gpt2_large", 774_030_080),
        ("gpt2_xl", 1_557_611_200),
        ("chapter5", 162_419_712),
    ],
)
def test_sizes_have_the_published_number_of_parameters(option, count):
    with torch.device("meta"):
        assert GPTModel(shape_of(option)).n_params() == count


def test_a_model_is_nothing_but_parameters():
    assert list(GPTModel(SMALL).buffers()) == []


def test_a_tied_head_is_the_token_embedding_and_an_untied_one_is_not():
    tied, untied = (GPTModel(replace(SMALL, tie_weights=tie_weights)) for tie_weights in (True, False))
    assert tied.out_head.weight is tied.tok_emb.weight
    assert untied.out_head.weight is not untied.tok_emb.weight


def test_gpt2_initialisation_has_its_standard_deviations():
    torch.manual_seed(0)
    model = GPTModel(ModelConfig(vocab_size=500, context_length=64, emb_dim=256, n_heads=4, n_layers=8))
    block = model.blocks[3]
    for weight, std in (
        (model.tok_emb.weight, 0.02),
        (block.att.qkv.weight, 0.02),
        (block.att.out_proj.weight, 0.02 / math.sqrt(16)),
        (block.ff.contract.weight, 0.02 / math.sqrt(16)),
    ):
        assert weight.std().item() == pytest.approx(std, rel=0.03)
    assert block.att.qkv.bias.abs().max() == 0


def test_dropout_acts_in_training_only():
    model = GPTModel(replace(SMALL, drop_rate=0.5))
    token_ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert not torch.equal(model.train()(token_ids), model(token_ids))
    assert torch.equal(model.eval()(token_ids), model(token_ids))


def test_dropout_from_bits_drops_its_share_and_keeps_the_mean():
    drop = Dropout(0.1)
    drop.from_bits = True
    x = torch.ones(3, 100_001, requires_grad=True)
    torch.manual_seed(0)
    dropped = drop(x)
    assert sorted(set(dropped.flatten().tolist())) == [0, pytest.approx(1 / 0.9, rel=1e-4)]
    # Five standard deviations of 300,003 draws.
    assert abs((dropped == 0).double().mean() - 0.1) < 5 * math.sqrt(0.1 * 0.9 / 300_003)
    neighbours = (dropped[:, 1:] == 0) & (dropped[:, :-1] == 0)
    assert abs(neighbours.double().mean() - 0.01) < 5 * math.sqrt(0.01 / 300_000)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped)  # what was dropped has no gradient, what was not is as large
    torch.manual_seed(0)
    assert torch.equal(drop(x), dropped)
    assert not torch.equal(drop(x), dropped)
    assert drop.eval()(x) is x


@pytest.mark.parametrize("tied", [True, False])
def test_every_way_of_a_step_comes_to_the_same(tied):
    """Attention by products and the loss over its logits, against torch's functions: loss and gradients."""
    torch.manual_seed(0)
    model = GPTModel(replace(SMALL, tie_weights=tied))
    ids = torch.tensor([[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 10]])
    inputs, targets = ids[:, :-1], ids[:, 1:]
    loss = next_token_loss(model(inputs), targets)
    loss.backward()
    wanted = {name: parameter.grad for name, parameter in model.named_parameters()}
    for by_products in (False, True):
        for in_place in (False, True):
            model.head_loss = head_loss_in_place if in_place else head_loss
            for block in model.blocks:
                block.att.by_products = by_products
            model.zero_grad()
            again = model(inputs, targets=targets)
            again.backward()
            assert again.item() == pytest.approx(loss.item(), rel=1e-6)
            for name, parameter in model.named_parameters():
                torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-6, rtol=1e-4)


def test_flops_count_the_multiplications_of_a_forward_and_backward_pass():
    with torch.device("meta"):
        model = GPTModel(shape_of("gpt2_small"))
    blocks = (
        12 * (4 + 8) * 768**2
    )  # attention's four and the feed-forward's eight matrices of emb_dim x emb_dim
    assert model.flops_per_token() == 6 * (blocks + 50257 * 768) + 12 * 12 * 768 * 1024
