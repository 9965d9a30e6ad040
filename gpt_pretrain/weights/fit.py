"""Weights of one shape in a model of another: context and vocabulary can change, the rest must match."""

from collections.abc import Mapping

import torch
from torch import Tensor

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.errors import InputError

FIXED = ("emb_dim", "n_layers", "n_heads", "qkv_bias")


def check_fit(read: ModelConfig, wanted: ModelConfig) -> None:
    """Raise InputError naming every setting that keeps weights of shape `read` out of a `wanted` model."""
    differing = [key for key in FIXED if getattr(read, key) != getattr(wanted, key)]
    if wanted.tie_weights and not read.tie_weights:
        differing.append("tie_weights")  # the other way round a head of its own begins as a copy
    if not differing:
        return
    given = ", ".join(f"model.{key}={_word(getattr(wanted, key))}" for key in differing)
    remedy = " ".join(f"model.{key}={_word(getattr(read, key))}" for key in differing)
    raise InputError(
        f"these weights do not fit {given}:\nset {remedy}\nor leave the shape to them: model=from_weights"
    )


def fit(state: Mapping[str, Tensor], wanted: ModelConfig) -> dict[str, Tensor]:
    """Parameters with as many positions and vocabulary rows as `wanted` has.

    Rows beyond are cut off; new rows are the mean of the old ones (Hewitt 2021: a new token then begins no
    likelier than the average one). The head gains no bias.
    """
    result = dict(state)
    result["pos_emb.weight"] = _resized(state["pos_emb.weight"], wanted.context_length)
    result["tok_emb.weight"] = _resized(state["tok_emb.weight"], wanted.vocab_size)
    if wanted.tie_weights:
        result["out_head.weight"] = result["tok_emb.weight"]
    else:
        result["out_head.weight"] = _resized(state["out_head.weight"], wanted.vocab_size)
    return result


def describe(read: ModelConfig, wanted: ModelConfig) -> list[str]:
    """A line for each thing that `fit` changes."""
    lines = []
    for key, rows in (("context_length", "positions"), ("vocab_size", "vocabulary rows")):
        before, after = getattr(read, key), getattr(wanted, key)
        if after != before:
            how = f"the last {before - after} are cut off" if after < before else "new ones are the mean"
            lines.append(f"model.{key}={after}: the weights have {before} {rows}, {how}")
    return lines


def _resized(rows: Tensor, count: int) -> Tensor:
    if count <= len(rows):
        return rows[:count]
    # (1, C) -> (new rows, C)
    return torch.cat([rows, rows.mean(0, keepdim=True).expand(count - len(rows), -1)])


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
