"""From settings to weights: whichever file, folder, run or download they name."""

import sys
from functools import partial
from pathlib import Path

import torch

from gpt_pretrain.config import (
    DataConfig,
    ModelConfig,
    ModelSettings,
    TokenizerConfig,
    WeightsConfig,
    resolve_model,
)
from gpt_pretrain.config.data import FROM_WEIGHTS
from gpt_pretrain.data.learned import tokenizer_for
from gpt_pretrain.data.sources import cache_dir
from gpt_pretrain.errors import InputError, UserFacingError
from gpt_pretrain.foreign import read_bytes, read_json
from gpt_pretrain.model import GPTModel
from gpt_pretrain.runs.folders import MANIFEST, find_checkpoint, find_checkpoints, find_runs, verify
from gpt_pretrain.terminal.text import show
from gpt_pretrain.tokenizer import Tokenizer, build_tokenizer, find_tokenizer
from gpt_pretrain.weights.fetch import fetch_gpt2
from gpt_pretrain.weights.fit import check_fit, describe
from gpt_pretrain.weights.read import OWN_FILES, Weights, build_model, open_weights
from gpt_pretrain.weights.stored import check_inside

LARGEST_TOKENIZER = 64 << 20  # bytes of a tokenizer.json; those of the largest models have half


def open_pretrained(
    weights: WeightsConfig, model: ModelSettings, checkpoint: str | None = None
) -> Weights | None:
    """The weights that the settings name, checked and not yet read; None for weights=scratch.

    Raises InputError, ArtifactError or, where a download fails, InfrastructureError.
    """
    if weights.name == "scratch" and checkpoint is None:
        return None
    path = _path(weights, model, checkpoint)
    _verify_what_can_be(path)
    return open_weights(path, model.n_heads)


def _verify_what_can_be(path: Path) -> None:
    """Compare with the manifest beside it; where there is none, say that nothing was compared."""
    folder = path if path.is_dir() else path.parent
    if (folder / MANIFEST).is_file() and (path.is_dir() or path.name in read_json(folder / MANIFEST)):
        verify(folder, but=OWN_FILES if path.name not in OWN_FILES else ())
    elif (folder / "trainer_state.json").is_file() or path.is_file():
        lacks = (
            f"no {MANIFEST} says what" if path.is_file() else f"its {MANIFEST} is missing: nothing says what"
        )
        show(f"{path} is used unchecked: {lacks} it should hold", file=sys.stderr)


def load_pretrained(
    weights: WeightsConfig, model: ModelSettings, tokenizer: TokenizerConfig, checkpoint: str | None = None
) -> tuple[GPTModel, Tokenizer, Path]:
    """The model that the settings name, in evaluation mode, its tokenizer, and where it was read from."""
    opened = open_pretrained(weights, model, checkpoint)
    if opened is None:
        raise InputError(
            "weights=scratch has learned nothing: give weights=gpt2 or checkpoint=<folder or file>"
        )
    chosen = tokenizer_of(opened, weights, tokenizer)
    config = fitting_model(opened, model, chosen.vocab_size)
    folder = opened.path.parent
    source = folder if (folder / MANIFEST).is_file() else opened.path
    return build_model(opened, config).eval(), chosen, source


def load_model(
    path: Path | str, tokenizer: str | TokenizerConfig = "from_weights"
) -> tuple[GPTModel, Tokenizer]:
    """A model in evaluation mode and its tokenizer, from a run, a checkpoint or weights in any format.

    `tokenizer` is asked for where none lies beside the weights. Raises InputError or ArtifactError.
    """
    settings = TokenizerConfig(name=tokenizer) if isinstance(tokenizer, str) else tokenizer
    model, found, _ = load_pretrained(
        WeightsConfig(name="checkpoint", path=str(path)), ModelSettings(), settings
    )
    return model, found


def fitting_model(weights: Weights | None, model: ModelSettings, tokenizer_vocab_size: int) -> ModelConfig:
    """The model's complete shape, refused where the weights do not fit it."""
    read = None if weights is None else weights.config
    config = resolve_model(model, read=read, tokenizer_vocab_size=tokenizer_vocab_size)
    if read is not None:
        check_fit(read, config)
        for line in describe(read, config):
            show(line, file=sys.stderr)
    return config


def tokenizer_of(
    weights: Weights, source: WeightsConfig, settings: TokenizerConfig, data: DataConfig | None = None
) -> Tokenizer:
    """The tokenizer that the weights were trained with: what lies beside them, or what the settings name.

    Raises InputError where it is neither, or where the settings name another than what lies there.
    """
    if settings.name not in FROM_WEIGHTS:
        tokenizer = tokenizer_for(data or DataConfig(), settings)
        check_tokenizer(weights, source, tokenizer)
        return tokenizer
    brought = brought_tokenizer(weights, source)
    if brought is None:
        raise InputError(
            f"{weights.path} does not say what its {weights.config.vocab_size:,} token ids mean: name the "
            "tokenizer that it was trained with,\n"
            "as in tokenizer=gpt2 or tokenizer=huggingface tokenizer.path=<its tokenizer.json>"
        )
    return brought


def brought_tokenizer(weights: Weights, source: WeightsConfig) -> Tokenizer | None:
    """The tokenizer beside the weights; None where nothing says which it is."""
    folder = weights.path.parent
    read = partial(read_bytes, at_most=LARGEST_TOKENIZER)
    if (folder / MANIFEST).is_file():
        return find_tokenizer(folder, read)
    found = find_tokenizer(folder, lambda file: read(_inside(file)))
    # OpenAI published one vocabulary for all sizes, and a download need not bring it.
    return build_tokenizer("gpt2") if found is None and source.name == "gpt2" else found


def _inside(file: Path) -> Path:
    """The file itself, where a link in the hub's cache stands for it."""
    check_inside(file)
    return file.resolve()


def check_tokenizer(weights: Weights, source: WeightsConfig, tokenizer: Tokenizer) -> None:
    """Raise InputError where an id means other text to `tokenizer` than it did when the weights were trained.

    More special tokens are welcome. Where nothing says what the ids meant, or says it so that it can be
    read, the user has.
    """
    try:
        trained = brought_tokenizer(weights, source)
    except UserFacingError as error:
        if (weights.path.parent / MANIFEST).is_file():  # of ours, which is damaged
            raise
        show(f"taken by tokenizer={tokenizer.name} as set, unchecked: {error}", file=sys.stderr)
        return
    if trained is None:
        return
    for id_ in range(min(trained.vocab_size, tokenizer.vocab_size)):
        here, there = tokenizer.decode_bytes([id_]), trained.decode_bytes([id_])
        if here != there:
            raise InputError(
                f"tokenizer={tokenizer.name}: {weights.path} was trained with the tokenizer {trained.name}, "
                f"where id {id_} means {there!r}, not {here!r}\n"
                "set tokenizer=from_weights, or train from weights=scratch"
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
    for setting, given in (("checkpoint", checkpoint), ("weights.path", weights.path)):
        if given == "":  # the folder we are in, to a path
            raise InputError(f"{setting} is empty: give a run, a checkpoint or a file of weights")
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
