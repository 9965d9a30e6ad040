"""A GPT-2 model as transformers stores it: its tensors, `config.json`, and what lies beside them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.foreign import parse_json
from gpt_pretrain.tokenizer import Tokenizer, to_json, tokenizer_files
from gpt_pretrain.weights.dialects import HUGGINGFACE, as_theirs

# What transformers' GPT-2 can be set to and ours cannot: another value would load and compute something else.
_REQUIRED = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),  # two names of one formula, by tanh
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}


def to_huggingface(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our parameters under their names; they always have a query/key/value bias: zeros if ours has none."""
    tensors = {}
    for ours, (theirs,) in HUGGINGFACE.names(config).items():
        (tensor,) = as_theirs(state[ours], HUGGINGFACE, ours, 1)
        tensors[theirs] = tensor.contiguous()  # safetensors' library stores no transposed view
    if not config.qkv_bias:
        for index in range(config.n_layers):
            tensors[f"transformer.h.{index}.attn.c_attn.bias"] = torch.zeros(3 * config.emb_dim)
    return tensors


def to_huggingface_config(config: ModelConfig, end_of_text_id: int) -> dict[str, Any]:
    """What `config.json` holds; `gpt_pretrain` in it keeps what their settings cannot say."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        **HUGGINGFACE.write_sizes(config),
        "n_inner": None,
        "attn_pdrop": config.drop_rate,
        "embd_pdrop": config.drop_rate,
        "resid_pdrop": config.drop_rate,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "tie_word_embeddings": config.tie_weights,
        "bos_token_id": end_of_text_id,
        "eos_token_id": end_of_text_id,
        "pad_token_id": end_of_text_id,
        "dtype": "float32",
        "gpt_pretrain": {"qkv_bias": config.qkv_bias, "init": config.init},
    }


def files_beside(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, bytes]:
    """Every file of a folder that transformers opens, but the tensors: name to content."""
    end = tokenizer.end_of_text_id
    # GPT-2 has no token of its own for padding. transformers' users give it this one; a mask hides it.
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end)
    files = tokenizer_files(tokenizer)
    said = parse_json(files["tokenizer_config.json"])
    said |= {"pad_token": said["eos_token"], "model_max_length": config.context_length}
    json_files = {
        "config.json": to_huggingface_config(config, end),
        "generation_config.json": ends,
        "tokenizer_config.json": said,
    }
    return files | {name: to_json(content) for name, content in json_files.items()}


def from_huggingface_config(content: bytes) -> ModelConfig:
    """The model's shape from a `config.json`. Raises ArtifactError where it is none of a GPT-2 model."""
    try:
        return ModelConfig(**read_huggingface_settings(parse_json(content)))
    except (ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(f"config.json is not a GPT-2 model's: {error!r}") from error


def read_huggingface_settings(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """What a `config.json` says of the model's shape, under our names. Raises ArtifactError where it asks for
    what our model does not compute.
    """
    if "model_type" not in theirs:
        raise ArtifactError(
            "config.json has no model_type, so it is not transformers': put the model's own there, or none"
        )
    for key, values in _REQUIRED.items():
        given = theirs.get(key, values[0])
        if given not in values:
            raise ArtifactError(
                f"config.json has {key}={given!r}, not {values[0]!r}: not a GPT-2 that we compute"
            )
    said = HUGGINGFACE.read_sizes(theirs)
    said.setdefault("n_heads", 12)  # transformers' default
    if theirs.get("n_inner") not in (None, 4 * said.get("emb_dim", 768)):
        raise ArtifactError(f"config.json has n_inner={theirs['n_inner']!r}, not four times the width")
    # Theirs are three rates, ours is one.
    drop_rate = theirs.get("resid_pdrop", 0.0)
    if not isinstance(drop_rate, int | float) or not 0 <= drop_rate < 1:
        raise ArtifactError(f"config.json has resid_pdrop={drop_rate!r}")
    own = theirs.get("gpt_pretrain", {})
    if not isinstance(own, dict) or not all(type(said.get(ours, 1)) is int for ours in HUGGINGFACE.sizes):
        raise ArtifactError("config.json has a size that is no whole number")
    said |= {"drop_rate": float(drop_rate), "tie_weights": bool(theirs.get("tie_word_embeddings", True))}
    if isinstance(own.get("qkv_bias"), bool):
        said["qkv_bias"] = own["qkv_bias"]
    if own.get("init") in ("gpt2", "torch"):
        said["init"] = own["init"]
    return said
