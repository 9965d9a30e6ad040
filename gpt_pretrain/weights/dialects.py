"""How other programs name and lay out GPT-2's parameters and sizes: the one table of renamed keys.

A dialect gives, for each of our parameters, the names of theirs; several names are rows one after another
(separate query, key and value). Which dialect a file speaks is told by its names and by the shape of a matrix
that is not square.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.weights.stored import Stored

NORMS = ("norm1", "norm2", "final_norm")


@dataclass(frozen=True, slots=True)
class Dialect:
    """One program's names and layout."""

    name: str
    top: Mapping[str, str]  # ours to theirs, outside the blocks
    block: str  # what precedes a block's names, {i} its number
    inside: Mapping[str, tuple[str, ...]]  # ours to theirs, in a block
    kinds: tuple[str, str] = (".weight", ".bias")  # how matrices and their biases end
    norm_kinds: tuple[str, str] = (".weight", ".bias")
    transposed: bool = False  # matrices of the blocks are (in, out), as in transformers' and OpenAI's Conv1D
    leading_one: bool = False  # and have a first dimension of 1
    ignored: tuple[str, ...] = ()  # endings of what holds no parameter: masks
    sizes: Mapping[str, str] = field(default_factory=dict)  # ours to theirs, in the file of settings
    aliases: Mapping[str, str] = field(default_factory=dict)  # other names that they read a size by

    def names(self, config: ModelConfig) -> dict[str, tuple[str, ...]]:
        """Their names for each of our parameters; none for a tied head or a query/key/value bias we lack."""
        pairs: dict[str, tuple[str, ...]] = {}
        for ours, theirs in self.top.items():
            if ours == "final_norm":
                pairs |= self._pair(ours, (theirs,), "")
            elif ours != "out_head.weight" or not config.tie_weights:
                pairs[ours] = (theirs,)
        for index in range(config.n_layers):
            prefix = self.block.format(i=index)
            for ours, theirs in self.inside.items():  # type: ignore[assignment]
                pairs |= self._pair(f"blocks.{index}.{ours}", tuple(theirs), prefix)
            if not config.qkv_bias:
                del pairs[f"blocks.{index}.att.qkv.bias"]
        return pairs

    def read_sizes(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What their settings say of the model's size, under our names; not yet checked.

        Raises ArtifactError where two names of one size disagree.
        """
        said: dict[str, Any] = {}
        for ours, theirs in self.sizes.items():
            names = (theirs, self.aliases.get(theirs, theirs))
            given = {name: settings[name] for name in names if name in settings}
            if not given:
                continue
            said[ours], *others = given.values()
            if others and others != [said[ours]]:
                both = " and ".join(f"{name}={value!r}" for name, value in given.items())
                raise ArtifactError(f"its settings say {both}, which mean the same: remove one of them")
        return said

    def write_sizes(self, config: ModelConfig) -> dict[str, int]:
        """The model's size under their names."""
        return {theirs: getattr(config, ours) for ours, theirs in self.sizes.items()}

    def is_transposed(self, ours: str) -> bool:
        """Whether theirs of this parameter is (in, out), ours being (out, in)."""
        return (
            self.transposed and ours.startswith("blocks.") and ours.endswith(".weight") and "norm" not in ours
        )

    def _pair(self, ours: str, theirs: tuple[str, ...], prefix: str) -> dict[str, tuple[str, ...]]:
        weight, bias = self.norm_kinds if ours.endswith(NORMS) else self.kinds
        return {
            f"{ours}.weight": tuple(f"{prefix}{name}{weight}" for name in theirs),
            f"{ours}.bias": tuple(f"{prefix}{name}{bias}" for name in theirs),
        }


_GPT2_INSIDE = {
    "norm1": ("ln_1",),
    "att.qkv": ("attn.c_attn",),
    "att.out_proj": ("attn.c_proj",),
    "norm2": ("ln_2",),
    "ff.expand": ("mlp.c_fc",),
    "ff.contract": ("mlp.c_proj",),
}
_GPT2_TOP = {
    "tok_emb.weight": "wte.weight",
    "pos_emb.weight": "wpe.weight",
    "final_norm": "ln_f",
}
_HEAD = {"out_head.weight": "lm_head.weight"}
_SIZES = {"emb_dim": "n_embd", "n_heads": "n_head", "n_layers": "n_layer"}
_HUGGINGFACE_SIZES = {"vocab_size": "vocab_size", "context_length": "n_positions", **_SIZES}
# `GPT2Config.attribute_map` of transformers, which reads and never writes them.
_HUGGINGFACE_ALIASES = {
    "n_positions": "max_position_embeddings",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
}
_NANOGPT_SIZES = {"vocab_size": "vocab_size", "context_length": "block_size", **_SIZES}
_OPENAI_SIZES = {"vocab_size": "n_vocab", "context_length": "n_ctx", **_SIZES}
# Causal masks, whatever the names say: they hold no parameter.
_MASKS = (".attn.bias", ".attn.masked_bias")

HUGGINGFACE = Dialect(
    "Hugging Face",
    {ours: f"transformer.{theirs}" for ours, theirs in _GPT2_TOP.items()} | _HEAD,
    "transformer.h.{i}.",
    _GPT2_INSIDE,
    transposed=True,
    ignored=_MASKS,
    sizes=_HUGGINGFACE_SIZES,
    aliases=_HUGGINGFACE_ALIASES,
)
HUGGINGFACE_BARE = Dialect(  # GPT2Model's own names, as on the hub
    "Hugging Face",
    _GPT2_TOP | _HEAD,
    "h.{i}.",
    _GPT2_INSIDE,
    transposed=True,
    ignored=_MASKS,
    sizes=_HUGGINGFACE_SIZES,
    aliases=_HUGGINGFACE_ALIASES,
)
# nanoGPT computes GELU in its exact form, GPT-2 and we by tanh; nothing in its files says so.
# The two differ by less than 5e-4 in an activation.
NANOGPT = Dialect(
    "nanoGPT", HUGGINGFACE.top, HUGGINGFACE.block, _GPT2_INSIDE, ignored=_MASKS, sizes=_NANOGPT_SIZES
)
OPENAI = Dialect(
    "OpenAI",
    {"tok_emb.weight": "model/wte", "pos_emb.weight": "model/wpe", "final_norm": "model/ln_f"},
    "model/h{i}/",
    {ours: tuple(name.replace(".", "/") for name in theirs) for ours, theirs in _GPT2_INSIDE.items()},
    kinds=("/w", "/b"),
    norm_kinds=("/g", "/b"),
    transposed=True,
    leading_one=True,
    sizes=_OPENAI_SIZES,
)
_BOOK_TOP = {
    "tok_emb.weight": "tok_emb.weight",
    "pos_emb.weight": "pos_emb.weight",
    "final_norm": "final_norm",
    "out_head.weight": "out_head.weight",
}
_BOOK_INSIDE = {
    "norm1": ("norm1",),
    "att.qkv": ("att.W_query", "att.W_key", "att.W_value"),
    "att.out_proj": ("att.out_proj",),
    "norm2": ("norm2",),
    "ff.expand": ("ff.layers.0",),
    "ff.contract": ("ff.layers.2",),
}
BOOK = Dialect(
    "the book",
    _BOOK_TOP,
    "trf_blocks.{i}.",
    _BOOK_INSIDE,
    norm_kinds=(".scale", ".shift"),
    ignored=(".att.mask",),
)


def detect(tensors: Mapping[str, Stored]) -> Dialect:
    """The dialect that the names speak. Raises ArtifactError where they are none of GPT-2's."""
    if "model/wte" in tensors:
        return OPENAI
    if "trf_blocks.0.ff.layers.0.weight" in tensors:
        return _book(tensors)
    for dialect in (HUGGINGFACE, HUGGINGFACE_BARE):
        fused = tensors.get(dialect.block.format(i=0) + "attn.c_attn.weight")
        if fused is not None:
            # nanoGPT has transformers' names, but Linear's (3C, C) where Conv1D has (C, 3C).
            rows_first = len(fused.shape) == 2 and fused.shape[0] == 3 * fused.shape[1]
            return NANOGPT if rows_first and dialect is HUGGINGFACE else dialect
    some = ", ".join(sorted(tensors)[:3]) or "none"
    raise ArtifactError(f"its tensors are not named as any GPT-2 that we know: {some}")


def _book(tensors: Mapping[str, Stored]) -> Dialect:
    """The book's names as this file has them: its later code fuses query, key and value."""
    inside: dict[str, tuple[str, ...]] = dict(_BOOK_INSIDE)
    if "trf_blocks.0.att.qkv.weight" in tensors:
        inside["att.qkv"] = ("att.qkv",)
    if "trf_blocks.0.att.proj.weight" in tensors:
        inside["att.out_proj"] = ("att.proj",)
    scales = "trf_blocks.0.norm1.scale" in tensors
    return Dialect(
        BOOK.name,
        _BOOK_TOP,
        BOOK.block,
        inside,
        norm_kinds=BOOK.norm_kinds if scales else BOOK.kinds,
        ignored=BOOK.ignored,
    )


def as_ours(pieces: list[Tensor], dialect: Dialect, ours: str) -> Tensor:
    """Their tensors as our parameter: a view of the file wherever no rows are put together."""
    if dialect.leading_one and dialect.is_transposed(ours):
        pieces = [piece.squeeze(0) for piece in pieces]  # (1, in, out) -> (in, out)
    if dialect.is_transposed(ours):
        pieces = [piece.T for piece in pieces]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)  # 3 of (C, C) -> (3C, C)


def as_theirs(parameter: Tensor, dialect: Dialect, ours: str, count: int) -> list[Tensor]:
    """Our parameter as their `count` tensors, views of it: what `as_ours` puts together."""
    pieces = list(parameter.chunk(count))  # (3C, C) -> 3 of (C, C)
    if dialect.is_transposed(ours):
        pieces = [piece.T for piece in pieces]
        if dialect.leading_one:
            pieces = [piece[None] for piece in pieces]  # (in, out) -> (1, in, out)
    return pieces


def their_shape(shape: tuple[int, ...], dialect: Dialect, ours: str, count: int) -> tuple[int, ...]:
    """The shape that each of their `count` tensors has where our parameter has `shape`."""
    shape = (shape[0] // count, *shape[1:])
    if dialect.is_transposed(ours):
        shape = shape[::-1]  # (out, in) -> (in, out)
        if dialect.leading_one:
            shape = (1, *shape)
    return shape
