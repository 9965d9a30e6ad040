"""From settings to weights: whichever file, folder, run or download they name."""

import sys
from pathlib import Path

import torch

from gpt_pretrain.config import ModelConfig, ModelSettings, WeightsConfig, resolve_model
from gpt_pretrain.data.sources import cache_dir
from gpt_pretrain.errors import InputError
from gpt_pretrain.model import GPTModel
from gpt_pretrain.runs.checkpoint import read_tokenizer
from gpt_pretrain.runs.folders import MANIFEST, find_checkpoint, find_checkpoints, find_runs, verify
from gpt_pretrain.terminal.text import show
from gpt_pretrain.tokenizer import TOKENIZER_FILE, Tokenizer, build_tokenizer
from gpt_pretrain.weights.fetch import fetch_gpt2
from gpt_pretrain.weights.fit import check_fit, describe
from gpt_pretrain.weights.read import OWN_FILES, Weights, build_model, open_weights


def open_pretrained(
    weights: WeightsConfig, model: ModelSettings, checkpoint: str | None = None
) -> Weights | None:
    """The weights that the settings name, checked and not yet read; None for weights=scratch.

    Raises InputError, ArtifactError or, where a download fails, InfrastructureError.
    """
    if weights.name == "scratch" and checkpoint is None:
        return None
    path = _path(weights, model, checkpoint)
    if (path / MANIFEST).is_file():
        verify(path, but=OWN_FILES)
    return open_weights(path, model.n_heads)


def load_pretrained(
    weights: WeightsConfig, model: ModelSettings, checkpoint: str | None = None
) -> tuple[GPTModel, Tokenizer, Path]:
    """The model that the settings name, in evaluation mode, its tokenizer, and where it was read from."""
    opened = open_pretrained(weights, model, checkpoint)
    if opened is None:
        raise InputError(
            "weights=scratch has learned nothing: give weights=gpt2 or checkpoint=<folder or file>"
        )
    tokenizer = tokenizer_of(opened)
    config = fitting_model(opened, model, tokenizer.vocab_size)
    folder = opened.path.parent
    source = folder if (folder / MANIFEST).is_file() else opened.path
    return build_model(opened, config).eval(), tokenizer, source


def fitting_model(weights: Weights | None, model: ModelSettings, tokenizer_vocab_size: int) -> ModelConfig:
    """The model's complete shape, refused where the weights do not fit it."""
    read = None if weights is None else weights.config
    config = resolve_model(model, read=read, tokenizer_vocab_size=tokenizer_vocab_size)
    if read is not None:
        check_fit(read, config)
        for line in describe(read, config):
            show(line, file=sys.stderr)
    return config


def tokenizer_of(weights: Weights) -> Tokenizer:
    """The tokenizer of a checkpoint of ours; of other weights the one that has as many ids."""
    folder, vocab_size = weights.path.parent, weights.config.vocab_size
    if (folder / TOKENIZER_FILE).is_file():
        return read_tokenizer(folder)
    for tokenizer in (build_tokenizer("gpt2"), build_tokenizer("bytes")):
        # More ids than GPT-2's are a padded vocabulary, as nanoGPT's.
        if vocab_size == tokenizer.vocab_size or (
            tokenizer.name == "gpt2" and vocab_size > tokenizer.vocab_size
        ):
            return tokenizer
    raise InputError(f"{weights.path} has {vocab_size} token ids: of no tokenizer that we know")


def check_tokenizer(weights: Weights, settings: WeightsConfig, tokenizer: Tokenizer) -> None:
    """Raise InputError where an id means other text to `tokenizer` than it did when the weights were trained.

    More special tokens are welcome. What neither we nor OpenAI trained does not say what its ids mean.
    """
    if settings.name != "gpt2" and not (weights.path.parent / TOKENIZER_FILE).is_file():
        return
    trained = tokenizer_of(weights)
    for id_ in range(min(trained.vocab_size, tokenizer.vocab_size)):
        here, there = tokenizer.decode_bytes([id_]), trained.decode_bytes([id_])
        if here != there:
            raise InputError(
                f"tokenizer={tokenizer.name}: {weights.path} was trained with the tokenizer {trained.name}, "
                f"where id {id_} means {there!r}, not {here!r}\n"
                f"set tokenizer={trained.name} with its settings, or train from weights=scratch"
            )


def pick_device(wanted: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `mps` means here. Raises InputError.

    `auto` takes no Apple GPU, which was never tried.
    """
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise InputError("device=mps: this machine has no Apple GPU that torch can use; set device=cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: this machine has no GPU that torch can use; set device=cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def _path(weights: WeightsConfig, model: ModelSettings, checkpoint: str | None) -> Path:
    if checkpoint is not None and (weights.path is not None or weights.name == "gpt2"):
        raise InputError(
            f"checkpoint={checkpoint} and weights={weights.name} both name weights: give one of them"
        )
    if checkpoint is not None:
        return find_checkpoint(Path(checkpoint))
    if weights.path is not None:
        return find_checkpoint(Path(weights.path), "weights.path")
    if weights.name == "gpt2":
        return fetch_gpt2(weights, model, cache_dir() / "weights")
    return _newest_checkpoint()


def _newest_checkpoint() -> Path:
    for root in (Path("outputs"), Path("multirun")):
        for run in find_runs(root):
            if find_checkpoints(run):
                return find_checkpoint(run)
    raise InputError(
        "there is no run below outputs/: train first (python train.py) or give checkpoint=<folder>"
    )
