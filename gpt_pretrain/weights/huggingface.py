"""A GPT-2 model as transformers stores it: names, transposed matrices and `config.json`."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.errors import ArtifactError

# Ours to theirs, inside a block. transformers' Conv1D keeps matrices as (in, out), the transpose of
# nn.Linear's.
_BLOCK = {
    "norm1": "ln_1",
    "att.qkv": "attn.c_attn",
    "att.out_proj": "attn.c_proj",
    "norm2": "ln_2",
    "ff.expand": "mlp.c_fc",
    "ff.contract": "mlp.c_proj",
}
_TOP = {
    "tok_emb.weight": "transformer.wte.weight",
    "pos_emb.weight": "transformer.wpe.weight",
    "final_norm.weight": "transformer.ln_f.weight",
    "final_norm.bias": "transformer.ln_f.bias",
    "out_head.weight": "lm_head.weight",
}


def names(config: ModelConfig) -> dict[str, str]:
    """Their name for each of our parameters. A tied head and a missing query/key/value bias have none."""
    pairs = dict(_TOP)
    if config.tie_weights:
        del pairs["out_head.weight"]
    for index in range(config.n_layers):
        for ours, theirs in _BLOCK.items():
            for kind in ("weight", "bias"):
                pairs[f"blocks.{index}.{ours}.{kind}"] = f"transformer.h.{index}.{theirs}.{kind}"
    if not config.qkv_bias:
        for index in range(config.n_layers):
            del pairs[f"blocks.{index}.att.qkv.bias"]
    return pairs


def to_huggingface(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our parameters under their names. Their format has a query/key/value bias always: zeros where ours has
    none.
    """
    tensors = {
        theirs: _transposed(theirs, state[ours]).contiguous() for ours, theirs in names(config).items()
    }
    if not config.qkv_bias:
        for index in range(config.n_layers):
            tensors[f"transformer.h.{index}.attn.c_attn.bias"] = torch.zeros(3 * config.emb_dim)
    return tensors


def from_huggingface(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Their parameters under our names, the tied head included. Raises ArtifactError where one is missing."""
    state = {}
    for ours, theirs in names(config).items():
        if theirs not in tensors:
            raise ArtifactError(f"the weights have no tensor {theirs}")
        state[ours] = _transposed(theirs, tensors[theirs]).contiguous()
    if config.tie_weights:
        state["out_head.weight"] = state["tok_emb.weight"]
    return state


def to_huggingface_config(config: ModelConfig, end_of_text_id: int) -> dict[str, Any]:
    """What `config.json` holds; `gpt_pretrain` in it keeps what their settings cannot say."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_embd": config.emb_dim,
        "n_head": config.n_heads,
        "n_layer": config.n_layers,
        "n_inner": None,
        "attn_pdrop": config.drop_rate,
        "embd_pdrop": config.drop_rate,
        "resid_pdrop": config.drop_rate,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "tie_word_embeddings": config.tie_weights,
        "bos_token_id": end_of_text_id,
        "eos_token_id": end_of_text_id,
        "dtype": "float32",
        "gpt_pretrain": {"qkv_bias": config.qkv_bias, "init": config.init},
    }


def from_huggingface_config(content: bytes) -> ModelConfig:
    """The model's shape from a `config.json`. Raises ArtifactError where it is none of a GPT-2 model."""
    try:
        theirs = json.loads(content)
        if theirs["model_type"] != "gpt2":
            raise ArtifactError(f"config.json is of a {theirs['model_type']} model, not of GPT-2")
        return ModelConfig(
            vocab_size=int(theirs["vocab_size"]),
            context_length=int(theirs["n_positions"]),
            emb_dim=int(theirs["n_embd"]),
            n_heads=int(theirs["n_head"]),
            n_layers=int(theirs["n_layer"]),
            drop_rate=float(theirs.get("resid_pdrop", 0.0)),
            tie_weights=bool(theirs.get("tie_word_embeddings", True)),
            **theirs.get("gpt_pretrain", {}),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"config.json is not a GPT-2 model's: {error!r}") from error


def _transposed(their_name: str, tensor: Tensor) -> Tensor:
    is_conv1d = tensor.ndim == 2 and ".h." in their_name
    return tensor.T if is_conv1d else tensor
