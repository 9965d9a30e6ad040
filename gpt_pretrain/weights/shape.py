"""A model's shape, read from its tensors; what a file says beside them must agree."""

from collections.abc import Mapping
from typing import Any

import torch

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.weights.dialects import Dialect, their_shape
from gpt_pretrain.weights.gpt2_sizes import SIZES
from gpt_pretrain.weights.stored import Stored

PARAMETER_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Tensors that are no parameters of a GPT-2 and may lie beside them.
BESIDE = ("global_step", "save_counter/.ATTRIBUTES/VARIABLE_VALUE")


def read_shape(
    tensors: Mapping[str, Stored], dialect: Dialect, said: Mapping[str, Any], n_heads: int | None
) -> ModelConfig:
    """The shape of the model whose tensors these are.

    `said` is what the file says itself, under our names; `n_heads` is what the user says where it does not.
    Raises ArtifactError where the two contradict each other, InputError where the number of heads is unknown.
    """
    vocab_size, emb_dim = _matrix(tensors, dialect.top["tok_emb.weight"])
    context_length, _ = _matrix(tensors, dialect.top["pos_emb.weight"])
    n_layers = 0
    while dialect.block.format(i=n_layers) + dialect.inside["ff.expand"][0] + dialect.kinds[0] in tensors:
        n_layers += 1
    head = dialect.top.get("out_head.weight")
    qkv_bias = dialect.block.format(i=0) + dialect.inside["att.qkv"][0] + dialect.kinds[1]
    seen: dict[str, Any] = {
        "vocab_size": vocab_size,
        "context_length": context_length,
        "emb_dim": emb_dim,
        "n_layers": n_layers,
        "tie_weights": head is None or head not in tensors or _same(tensors, head, dialect),
        "qkv_bias": qkv_bias in tensors,
    }
    for key in ("vocab_size", "context_length", "emb_dim", "n_layers"):
        if key in said and said[key] != seen[key]:
            raise ArtifactError(f"its settings say {key}={said[key]}, its tensors {seen[key]}")
    if said.get("tie_weights") is False and (head is None or head not in tensors):
        raise ArtifactError("its settings say that the output head is not tied, but it has no tensor of it")
    if said.get("qkv_bias") is False and seen["qkv_bias"]:
        _check_zero(tensors, dialect, n_layers)
        seen["qkv_bias"] = False
    rest = {key: said[key] for key in ("drop_rate", "init") if key in said}
    return _checked(ModelConfig(**seen, **rest, n_heads=_heads(seen, said, n_heads)))


def check_tensors(tensors: Mapping[str, Stored], dialect: Dialect, config: ModelConfig) -> None:
    """Every tensor there, of the right shape and type, and none besides. Raises ArtifactError."""
    expected = parameter_shapes(config)
    unknown = set(tensors) - set(BESIDE)
    for ours, theirs in dialect.names(config).items():
        for name in theirs:
            if name not in tensors:
                if may_be_absent(tensors, dialect, ours):
                    continue
                raise ArtifactError(f"it has no tensor {name}")
            unknown.discard(name)
            wanted = their_shape(expected[ours], dialect, ours, len(theirs))
            if tensors[name].shape != wanted:
                raise ArtifactError(
                    f"{name} is {tensors[name].shape}, but the model's shape asks for {wanted}"
                )
            if tensors[name].dtype not in PARAMETER_DTYPES:
                raise ArtifactError(
                    f"{name} is {str(tensors[name].dtype).removeprefix('torch.')}: "
                    "parameters are float32, float16 or bfloat16"
                )
    unknown -= _derived(dialect, config)
    unknown = {name for name in unknown if not name.endswith(dialect.ignored)} if dialect.ignored else unknown
    if unknown:
        raise ArtifactError(f"it has tensors that are no part of a GPT-2: {', '.join(sorted(unknown)[:3])}")


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each of our parameters, without the second that building XL takes even on no device."""
    width = config.emb_dim
    matrices = {
        "att.qkv": (3 * width, width),
        "att.out_proj": (width, width),
        "ff.expand": (4 * width, width),
        "ff.contract": (width, 4 * width),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "tok_emb.weight": (config.vocab_size, width),
        "pos_emb.weight": (config.context_length, width),
        "out_head.weight": (config.vocab_size, width),
    }
    norms = [f"blocks.{i}.{norm}" for i in range(config.n_layers) for norm in ("norm1", "norm2")]
    for norm in [*norms, "final_norm"]:
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for i in range(config.n_layers):
        for name, shape in matrices.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
    return shapes


def may_be_absent(tensors: Mapping[str, Stored], dialect: Dialect, ours: str) -> bool:
    """nanoGPT's bias=False leaves out every bias: adding zero is the same."""
    return (
        dialect.name == "nanoGPT"
        and ours.endswith(".bias")
        and f"{dialect.top['final_norm']}.bias" not in tensors
    )


def _derived(dialect: Dialect, config: ModelConfig) -> set[str]:
    """Names of what our parameters already say: the tied head, and query/key/value biases that are zero."""
    names = {dialect.top.get("out_head.weight", "")} if config.tie_weights else set()
    if not config.qkv_bias:
        for index in range(config.n_layers):
            prefix = dialect.block.format(i=index)
            names |= {f"{prefix}{name}{dialect.kinds[1]}" for name in dialect.inside["att.qkv"]}
    return names


def _matrix(tensors: Mapping[str, Stored], name: str) -> tuple[int, int]:
    if name not in tensors:
        raise ArtifactError(f"it has no tensor {name}")
    shape = tensors[name].shape
    if len(shape) != 2:
        raise ArtifactError(f"{name} is {shape}, not a matrix")
    return shape[0], shape[1]


def _same(tensors: Mapping[str, Stored], head: str, dialect: Dialect) -> bool:
    """Whether an explicit head repeats the token embedding: then it is tied."""
    embedding, stored = tensors[dialect.top["tok_emb.weight"]], tensors[head]
    if stored.shape != embedding.shape or stored.dtype != embedding.dtype:
        return False
    # A torch file may keep one tensor under both names; any other copy is compared number by number.
    first, second = embedding.read(), stored.read()
    return first.data_ptr() == second.data_ptr() or torch.equal(first, second)


def _check_zero(tensors: Mapping[str, Stored], dialect: Dialect, n_layers: int) -> None:
    for index in range(n_layers):
        for part in dialect.inside["att.qkv"]:
            name = f"{dialect.block.format(i=index)}{part}{dialect.kinds[1]}"
            if name in tensors and bool(tensors[name].read().any()):
                raise ArtifactError(f"its settings say qkv_bias=false, but {name} is not zero")


def _heads(seen: Mapping[str, Any], said: Mapping[str, Any], wanted: int | None) -> int:
    """Heads lie side by side in one matrix, so their number cannot be seen; OpenAI's sizes tell theirs."""
    size = SIZES.get((seen["emb_dim"], seen["n_layers"]))
    known = said.get("n_heads", wanted or (size and size.n_heads))
    if known is None:
        raise InputError(
            "the weights do not say how many attention heads the model has: set model.n_heads=<number>"
        )
    return known


def _checked(config: ModelConfig) -> ModelConfig:
    for key in ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers"):
        value = getattr(config, key)
        if type(value) is not int or value < 1:  # a bool is an int to isinstance
            raise ArtifactError(f"its {key} is {value}")
    if config.emb_dim % config.n_heads:
        raise ArtifactError(f"its width {config.emb_dim} cannot be split among {config.n_heads} heads")
    return config
