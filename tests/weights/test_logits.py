"""Every format against transformers' logits: shapes cannot tell a square matrix from its transpose."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.model import GPTModel
from gpt_pretrain.weights.read import build_model, open_weights
from gpt_pretrain.weights.shape import parameter_shapes
from tests.weights import foreign
from tests.weights.foreign import logits, reference
from tests.weights.written_by_tensorflow import make_fixtures as fixtures


def read(path, **changes):
    weights = open_weights(path, n_heads=changes.pop("n_heads", None))
    return build_model(weights, dataclasses.replace(weights.config, **changes)).eval()


@pytest.mark.parametrize("size", foreign.SIZES)
@pytest.mark.parametrize("write", foreign.FORMATS, ids=lambda write: write.__name__)
def test_logits_equal_transformers(write, size, tmp_path):
    model = reference(size)
    write(model, tmp_path)
    ours = read(tmp_path, n_heads=foreign.SIZES[size][1])
    torch.testing.assert_close(logits(ours), logits(model), atol=1e-5, rtol=0)
    assert ours.config.tie_weights
    assert ours.out_head.weight is ours.tok_emb.weight


def test_a_forgotten_transpose_of_the_square_projection_would_show():
    model = reference("small")
    expected = logits(model)
    wrong = GPT2LMHeadModel(model.config).eval()
    wrong.load_state_dict(model.state_dict())
    for block in wrong.transformer.h:
        block.attn.c_proj.weight.data = block.attn.c_proj.weight.data.T
    assert (logits(wrong) - expected).abs().max() > 1e-3


def test_the_books_model_is_the_same_function():
    for fused in (False, True):
        book = foreign.book_model(reference("small"), fused=fused)
        torch.testing.assert_close(logits(book), logits(reference("small")), atol=1e-5, rtol=0)


def test_the_checkpoint_that_tensorflow_wrote_gives_transformers_logits():
    folder = fixtures.HERE / "gpt2"
    _, context, width, heads, layers = fixtures.HPARAMS.values()
    model = GPT2LMHeadModel(
        type(reference().config)(
            vocab_size=61,
            n_positions=context,
            n_embd=width,
            n_head=heads,
            n_layer=layers,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    state = {}
    for name, shape in fixtures.gpt2_shapes().items():
        theirs = name.replace("model/h", "h.").replace("model/", "").replace("/", ".")
        for short, long in ((".w", ".weight"), (".g", ".weight"), (".b", ".bias")):
            theirs = theirs.removesuffix(short) + long if theirs.endswith(short) else theirs
        theirs += ".weight" if theirs in ("wte", "wpe") else ""
        state[theirs] = torch.from_numpy(fixtures.numbers(name, shape).astype(np.float32)).squeeze(0)
    model.transformer.load_state_dict(state)
    ids = torch.arange(2 * context).view(2, context) % 61
    with torch.no_grad():
        torch.testing.assert_close(read(folder)(ids), model(ids).logits, atol=1e-5, rtol=0)


def test_an_untied_head_stays_untied(tmp_path):
    model = reference("small", tied=False)
    foreign.huggingface_explicit_head(model, tmp_path)
    ours = read(tmp_path)
    assert not ours.config.tie_weights
    torch.testing.assert_close(logits(ours), logits(model), atol=1e-5, rtol=0)


def test_a_model_without_query_key_and_value_bias_is_read_as_one(tmp_path):
    book = foreign.book_model(reference("small", tied=False), qkv_bias=False)
    torch.save(book.state_dict(), tmp_path / "model.pth")
    ours = read(tmp_path / "model.pth", n_heads=12)
    assert not ours.config.qkv_bias
    torch.testing.assert_close(logits(ours), logits(book), atol=1e-5, rtol=0)


def test_nanogpts_models_without_any_bias_get_zeros(tmp_path):
    model = GPT2LMHeadModel(reference("small").config).eval()
    model.load_state_dict(reference("small").state_dict())
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            parameter.data.zero_()
    foreign.nanogpt(model, tmp_path)
    checkpoint = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    checkpoint["model"] = {k: v for k, v in checkpoint["model"].items() if not k.endswith(".bias")}
    torch.save(checkpoint, tmp_path / "ckpt.pt")
    torch.testing.assert_close(logits(read(tmp_path)), logits(model), atol=1e-5, rtol=0)
    del checkpoint["model"]["transformer.h.3.ln_1.weight"]
    torch.save(checkpoint, tmp_path / "ckpt.pt")
    with pytest.raises(ArtifactError, match=r"no tensor transformer\.h\.3\.ln_1\.weight"):
        read(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_its_exact_float32(tmp_path, dtype):
    model = GPT2LMHeadModel(reference("small").config).eval()
    model.load_state_dict(reference("small").state_dict())
    model.to(dtype).save_pretrained(tmp_path)
    torch.testing.assert_close(logits(read(tmp_path)), logits(model.float()), atol=1e-5, rtol=0)


def test_a_file_is_told_apart_by_its_content_not_its_name(tmp_path):
    foreign.nanogpt(reference("small"), tmp_path)
    (tmp_path / "ckpt.pt").rename(tmp_path / "model.safetensors")
    foreign.book_safetensors(reference("small"), tmp_path)
    (tmp_path / "gpt2-small-124M.safetensors").rename(tmp_path / "book.pth")
    assert open_weights(tmp_path / "model.safetensors").dialect.name == "nanoGPT"
    assert open_weights(tmp_path / "book.pth", n_heads=12).dialect.name == "the book"


def test_a_folder_with_two_models_asks_which(tmp_path):
    foreign.book(reference("small"), tmp_path)
    foreign.nanogpt(reference("small"), tmp_path)
    with pytest.raises(InputError, match=r"several files of weights: ckpt\.pt, gpt2\.pth"):
        open_weights(tmp_path)


def test_the_number_of_heads_is_asked_for_where_no_file_says_it(tmp_path):
    foreign.book(reference("small"), tmp_path)
    with pytest.raises(InputError, match=r"set model\.n_heads"):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "llama"),
        ("activation_function", "relu"),
        ("layer_norm_epsilon", 1e-6),
        ("scale_attn_by_inverse_layer_idx", True),
        ("n_inner", 7),
        ("n_layer", 11),
        ("n_head", 5),
        ("n_head", "12"),
    ],
)
def test_settings_that_compute_something_else_are_refused(tmp_path, key, value):
    foreign.huggingface(reference("small"), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(ArtifactError):
        open_weights(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("write", foreign.FORMATS, ids=lambda write: write.__name__)
def test_logits_equal_transformers_at_124m_in_full(write, tmp_path):
    model = reference((768, 12, 12), vocabulary=50257, context=64)
    with torch.no_grad():  # as far from zero as trained weights, so that 1e-5 means the same
        for parameter in model.parameters():
            parameter.mul_(0.02 / parameter.std())
    write(model, tmp_path)
    ours = read(tmp_path)
    assert ours.n_params() == 124_439_808 - (1024 - 64) * 768
    expected = logits(model, 50257, 64)
    torch.testing.assert_close(logits(ours, 50257, 64), expected, atol=1e-5, rtol=0)


def test_the_shapes_worked_out_are_those_of_the_model():
    config = ModelConfig(
        vocab_size=31, context_length=8, emb_dim=12, n_heads=3, n_layers=2, tie_weights=False
    )
    model = GPTModel(config)
    assert parameter_shapes(config) == {name: tuple(p.shape) for name, p in model.named_parameters()}


def test_a_head_that_differs_is_not_tied_whatever_the_settings_say(tmp_path):
    """As transformers 5 decides."""
    model = reference("small", tied=False)
    foreign.huggingface_explicit_head(model, tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": True}))
    ours, theirs = read(tmp_path), GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    assert not ours.config.tie_weights
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-5, rtol=0)
