"""What we write, read again: every kind of model that a format can hold, to the last bit."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.model import GPTModel
from gpt_pretrain.tokenizer import build_tokenizer
from gpt_pretrain.weights.read import open_weights
from gpt_pretrain.weights.write import write_weights
from tests.weights.book_model import BookModel
from tests.weights.foreign import logits

CONFIG = ModelConfig(vocab_size=257, context_length=16, emb_dim=24, n_heads=4, n_layers=2, drop_rate=0.1)


def model_of(**changes):
    torch.manual_seed(0)
    model = GPTModel(dataclasses.replace(CONFIG, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def write(model, out, format, max_bytes=None):
    write_weights(out, format, model.state_dict(), model.config, build_tokenizer("bytes"), max_bytes)


@pytest.mark.parametrize("tie_weights", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize(
    ("format", "max_bytes"), [("huggingface", None), ("huggingface", 9000), ("book", 9000)]
)
def test_every_kind_of_model_comes_back_bit_for_bit(tmp_path, tie_weights, qkv_bias, format, max_bytes):
    model = model_of(tie_weights=tie_weights, qkv_bias=qkv_bias, init="torch")
    write(model, tmp_path / "out", format, max_bytes)
    read = open_weights(tmp_path / "out")
    assert read.config == model.config
    state = read.parameters()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("tie_weights", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_other_programs_compute_the_same_from_what_we_write(tmp_path, tie_weights, qkv_bias):
    model = model_of(tie_weights=tie_weights, qkv_bias=qkv_bias)
    write(model, tmp_path / "hf", "huggingface")
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "hf")
    torch.testing.assert_close(logits(theirs), logits(model), atol=1e-5, rtol=0)
    write(model, tmp_path / "book", "book")
    book = BookModel(257, 16, 24, 4, 2, qkv_bias).eval()
    book.load_state_dict(load_file(tmp_path / "book" / "model.safetensors"), strict=True)
    torch.testing.assert_close(logits(book), logits(model), atol=1e-5, rtol=0)


def test_openais_format_adds_the_bias_it_always_has_and_refuses_a_head_it_cannot_hold(tmp_path):
    model = model_of(qkv_bias=False)
    write(model, tmp_path / "out", "openai")
    state = open_weights(tmp_path / "out").parameters()
    assert not state.pop("blocks.1.att.qkv.bias").any()
    state.pop("blocks.0.att.qkv.bias")
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(InputError, match="no output head of its own"):
        write(model_of(tie_weights=False), tmp_path / "other", "openai")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_bias_that_the_settings_deny_is_not_dropped_in_silence(tmp_path):
    import json

    from gpt_pretrain.errors import ArtifactError

    write(model_of(), tmp_path / "out", "huggingface")
    file = tmp_path / "out" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"gpt_pretrain": {"qkv_bias": False}}))
    with pytest.raises(ArtifactError, match="is not zero"):
        open_weights(tmp_path / "out")
