"""`generate`: from a checkpoint and a prompt to text on the terminal. No lightning."""

import dataclasses
import logging
import sys

import torch

from gpt_pretrain.config import GenerateConfig
from gpt_pretrain.decoding.generate import stream_text
from gpt_pretrain.errors import InputError
from gpt_pretrain.pretrained import load_pretrained

log = logging.getLogger(__name__)


def generate(config: GenerateConfig) -> None:
    """Write `num_samples` continuations of the prompt to standard output, each as it comes."""
    model, tokenizer, source = load_pretrained(config.weights, config.model, config.checkpoint)
    _note(f"from {source}")
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


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: this machine has no GPU that torch can use; set device=cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def _note(text: str) -> None:
    """Beside the text, not in it."""
    print(text, file=sys.stderr)
