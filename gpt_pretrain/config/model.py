"""The model's shape: what the user says of it, and what follows."""

import dataclasses
from dataclasses import dataclass

from gpt_pretrain.config.fields import check_ranges, number, one_of
from gpt_pretrain.errors import InputError


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """A complete model shape, in the book's words."""

    vocab_size: int = number(at_least=1)  # token ids
    context_length: int = number(at_least=1)  # tokens a window
    emb_dim: int = number(at_least=1)  # width
    n_heads: int = number(at_least=1)  # of attention, in each layer
    n_layers: int = number(at_least=1)  # blocks
    drop_rate: float = number(0.0, at_least=0, below=1)  # embeddings, attention weights and both shortcuts
    qkv_bias: bool = True  # biases of query, key and value
    tie_weights: bool = True  # the output head is the token embedding
    init: str = one_of("gpt2", "torch")  # torch: PyTorch's own defaults, as in the book


@dataclass(kw_only=True, slots=True)
class ModelSettings:
    """What the user says of the model. None: as the weights say, else as `ModelConfig` says."""

    vocab_size: int | None = number(None, at_least=1)  # neither given nor read: the tokenizer's
    context_length: int | None = number(None, at_least=1)  # tokens a window
    emb_dim: int | None = number(None, at_least=1)  # width, a multiple of n_heads
    n_heads: int | None = number(None, at_least=1)  # of attention, in each layer
    n_layers: int | None = number(None, at_least=1)  # blocks
    drop_rate: float | None = number(None, at_least=0, below=1)  # dropout; else 0
    qkv_bias: bool | None = None  # biases of query, key and value; else true
    tie_weights: bool | None = None  # the output head is the token embedding; else true
    init: str | None = None  # gpt2 or torch (the book's); else gpt2


def resolve_model(
    settings: ModelSettings, *, read: ModelConfig | None, tokenizer_vocab_size: int
) -> ModelConfig:
    """The model's complete shape: the user's settings, else what the weights say, else the defaults.

    Raises InputError where a number is neither given nor read, or where numbers do not fit together.
    """
    known = {} if read is None else {key: getattr(read, key) for key in ModelConfig.__slots__}
    known |= {key: value for key in ModelSettings.__slots__ if (value := getattr(settings, key)) is not None}
    known.setdefault("vocab_size", tokenizer_vocab_size)
    for entry in dataclasses.fields(ModelConfig):
        if entry.default is dataclasses.MISSING and entry.name not in known:
            raise InputError(f"model.{entry.name} is not set: choose a size, as in model=mini, or set it")
    config = ModelConfig(**known)
    check_ranges(config, "model.")
    if config.emb_dim % config.n_heads:
        nearest_width = config.n_heads * max(1, round(config.emb_dim / config.n_heads))
        raise InputError(
            f"model.emb_dim={config.emb_dim} is not divisible by model.n_heads={config.n_heads}: "
            f"set model.emb_dim={nearest_width} or another number of heads"
        )
    if config.vocab_size < tokenizer_vocab_size:
        raise InputError(
            f"model.vocab_size={config.vocab_size} cannot hold the tokenizer's {tokenizer_vocab_size} ids: "
            f"set model.vocab_size={tokenizer_vocab_size} or another tokenizer, as in tokenizer=bytes"
        )
    return config
