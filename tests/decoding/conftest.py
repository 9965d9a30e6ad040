"""Tiny models with random weights, ours and transformers', that hold the same numbers."""

from shutil import which

import pytest
import torch

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.decoding.compiled import COMPILERS
from gpt_pretrain.model import GPTModel
from gpt_pretrain.weights.huggingface import to_huggingface

COMPILES = pytest.mark.skipif(not any(map(which, COMPILERS)), reason="needs a C compiler")
KERNELS = ["torch", pytest.param("c", marks=COMPILES)]
END = 10  # the end of text of the random models: one that comes up now and then


def build(vocab_size=61, context_length=64, n_layers=2, seed=0):
    """A random model that writes many different tokens, each clearly likelier than the next."""
    torch.manual_seed(seed)
    config = ModelConfig(
        vocab_size=vocab_size, context_length=context_length, emb_dim=32, n_heads=4, n_layers=n_layers
    )
    model = GPTModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=1.0 if name == "pos_emb.weight" else 0.3)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.final_norm.weight.mul_(2)
    return model


@pytest.fixture(scope="session")
def model():
    return build()


@pytest.fixture(scope="session")
def short_model():
    """One with a context of 12 tokens, to run over its end."""
    return build(context_length=12, seed=1)


def theirs(model):
    """transformers' model with the same weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    ours = model.config
    config = GPT2Config(
        vocab_size=ours.vocab_size,
        n_positions=ours.context_length,
        n_embd=ours.emb_dim,
        n_head=ours.n_heads,
        n_layer=ours.n_layers,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
    )
    other = GPT2LMHeadModel(config).eval()
    state = to_huggingface(model.state_dict(), ours)
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    other.tie_weights()
    return other


@pytest.fixture(scope="session")
def reference(model):
    return theirs(model)
