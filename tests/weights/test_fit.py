"""Weights in a model of another shape: what may change, what is refused, what the new rows are."""

import dataclasses

import pytest
import torch

from gpt_pretrain.errors import InputError
from gpt_pretrain.weights.fit import check_fit
from gpt_pretrain.weights.read import build_model, open_weights
from tests.weights import foreign
from tests.weights.foreign import logits, reference

SIZE = (8, 2, 2)


@pytest.fixture
def weights(tmp_path):
    foreign.huggingface(reference(SIZE), tmp_path)
    return open_weights(tmp_path)


def built(weights, **changes):
    return build_model(weights, dataclasses.replace(weights.config, **changes)).eval()


def test_a_shorter_context_keeps_the_first_positions(weights):
    short = built(weights, context_length=5)
    assert short.pos_emb.weight.shape == (5, 8)
    ids = torch.arange(5)[None]
    with torch.no_grad():
        torch.testing.assert_close(short(ids), reference(SIZE)(ids).logits, atol=1e-5, rtol=0)


def test_a_longer_context_computes_the_same_where_the_old_one_reached(weights):
    long = built(weights, context_length=20)
    torch.testing.assert_close(logits(long), logits(reference(SIZE)), atol=1e-5, rtol=0)
    old = weights.parameters()["pos_emb.weight"]
    torch.testing.assert_close(long.pos_emb.weight[16:], old.mean(0).expand(4, -1))


@pytest.mark.parametrize("tied", [True, False])
def test_new_vocabulary_rows_are_the_mean_and_bring_no_bias(tmp_path, tied):
    foreign.huggingface_explicit_head(reference(SIZE, tied=tied), tmp_path)
    weights = open_weights(tmp_path)
    assert weights.config.tie_weights is tied
    grown = built(weights, vocab_size=264)
    expected = logits(reference(SIZE, tied=tied))
    assert grown.out_head.bias is None
    torch.testing.assert_close(logits(grown)[..., :257], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(  # a mean row gives the mean logit
        logits(grown)[..., 257:], expected.mean(-1, keepdim=True).expand(-1, -1, 7), atol=1e-5, rtol=0
    )


def test_a_padded_vocabulary_can_be_cut_off(weights):
    cut = built(weights, vocab_size=250)
    ids = torch.arange(16)[None]
    with torch.no_grad():
        torch.testing.assert_close(cut(ids), reference(SIZE)(ids).logits[..., :250], atol=1e-5, rtol=0)


def test_an_untied_head_begins_as_a_copy_of_its_own(weights):
    model = build_model(weights, dataclasses.replace(weights.config, tie_weights=False), own=True)
    assert torch.equal(model.out_head.weight, model.tok_emb.weight)
    with torch.no_grad():
        model.out_head.weight.add_(1)
    assert not torch.equal(model.out_head.weight, model.tok_emb.weight)


def test_dropout_is_the_models_not_the_weights(weights):
    assert built(weights, drop_rate=0.3).blocks[0].drop_shortcut.p == 0.3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"emb_dim": 16}, "model.emb_dim=16:\nset model.emb_dim=8"),
        (
            {"n_layers": 3, "n_heads": 4},
            "model.n_layers=3, model.n_heads=4:\nset model.n_layers=2 model.n_heads=2",
        ),
        ({"qkv_bias": False}, "model.qkv_bias=false:\nset model.qkv_bias=true"),
    ],
)
def test_what_does_not_fit_is_refused_before_loading_with_the_settings_to_change(weights, change, named):
    loaded = []
    unread = dataclasses.replace(weights, tensors=dict.fromkeys(weights.tensors))
    with pytest.raises(InputError) as refused:
        build_model(unread, dataclasses.replace(weights.config, **change))
    assert named in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 3
    assert loaded == []


def test_an_untied_head_is_not_thrown_away(tmp_path):
    foreign.huggingface_explicit_head(reference(SIZE, tied=False), tmp_path)
    read = open_weights(tmp_path).config
    with pytest.raises(InputError, match="tie_weights=true"):
        check_fit(read, dataclasses.replace(read, tie_weights=True))


def test_training_changes_no_file(weights):
    model = build_model(weights, weights.config, own=True)
    before = weights.path.read_bytes()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.is_contiguous()
            parameter.zero_()
    assert weights.path.read_bytes() == before
    assert weights.parameters()["tok_emb.weight"].any()
