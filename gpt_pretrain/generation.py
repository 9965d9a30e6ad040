"""`generate`: from a checkpoint and a prompt to text on the terminal. No lightning."""

import dataclasses
import logging
import sys
from pathlib import Path

import torch

from gpt_pretrain.checkpoint import load_model
from gpt_pretrain.config import GenerateConfig
from gpt_pretrain.decoding.generate import stream_text
from gpt_pretrain.errors import InputError
from gpt_pretrain.runs import find_checkpoint, find_checkpoints, find_runs

log = logging.getLogger(__name__)


def generate(config: GenerateConfig) -> None:
    """Write `num_samples` continuations of the prompt to standard output, each as it comes."""
    checkpoint = find_checkpoint(Path(config.checkpoint)) if config.checkpoint else _newest_checkpoint()
    model, tokenizer = load_model(checkpoint)
    _note(f"from {checkpoint}")
    model.to(_device(config.device))
    n_prompt, context_length = len(tokenizer.encode(config.prompt)), model.config.context_length
    if n_prompt > context_length:
        _note(f"the prompt has {n_prompt} tokens, the context {context_length}: only the last ones are read")
    for sample in range(config.num_samples):
        decoding = dataclasses.replace(config.decoding, seed=config.decoding.seed + sample)
        if config.num_samples > 1:
            _note(f"--- sample {sample + 1}, decoding.seed={decoding.seed}")
        print(config.prompt, end="", flush=True)
        for piece in stream_text(model, tokenizer, config.prompt, decoding):
            print(piece, end="", flush=True)
        print()


def _newest_checkpoint() -> Path:
    for root in (Path("outputs"), Path("multirun")):
        for run in find_runs(root):
            if find_checkpoints(run):
                return find_checkpoint(run)
    raise InputError(
        "there is no run below outputs/: train first (python train.py) or give checkpoint=<folder>"
    )


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: this machine has no GPU that torch can use; set device=cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def _note(text: str) -> None:
    """Beside the text, not in it."""
    print(text, file=sys.stderr)
