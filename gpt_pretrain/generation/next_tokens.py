"""What the model expects next, as a table and a picture, and how likely it finds a text."""

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor

from gpt_pretrain.decoding.scoring import next_token_logits, token_logprobs
from gpt_pretrain.decoding.text import encode
from gpt_pretrain.errors import InputError
from gpt_pretrain.loss import perplexity
from gpt_pretrain.model import GPTModel
from gpt_pretrain.tokenizer import Tokenizer, decode

TEMPERATURES = (1.0, 0.1, 5.0)  # the chapter's


def next_token_table(model: GPTModel, tokenizer: Tokenizer, prompt: str, n: int) -> str:
    """The `n` most likely tokens after `prompt`: probability, id and text, one a line."""
    top = (
        next_token_logits(model, encode(tokenizer, prompt)).softmax(-1).topk(min(n, model.config.vocab_size))
    )
    rows = [
        f"{probability:11.6f} {id_:8d}  {decode(tokenizer, [id_])!r}"
        for probability, id_ in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]
    return "\n".join(["probability       id  token", *rows])


def plot_temperatures(model: GPTModel, tokenizer: Tokenizer, prompt: str, n: int, file: Path) -> None:
    """Bars of the `n` most likely next tokens' probabilities at the chapter's three temperatures, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    logits = next_token_logits(model, encode(tokenizer, prompt))
    ids = logits.topk(min(n, len(logits))).indices
    figure, axes = pyplot.subplots(figsize=(1.5 + 0.6 * len(ids), 3.5))
    for at, temperature in enumerate(TEMPERATURES):
        heights = scaled_probabilities(logits, temperature)[ids].tolist()
        places = [place + 0.25 * (at - 1) for place in range(len(ids))]
        axes.bar(places, heights, 0.25, label=f"temperature {temperature:g}")
    labels = [repr(decode(tokenizer, [id_]))[1:-1].replace("$", r"\$") for id_ in ids.tolist()]
    axes.set_xticks(range(len(ids)), labels, rotation=60, ha="right")
    axes.set_ylabel("probability")
    axes.legend()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # drawn as a box
        figure.savefig(file, bbox_inches="tight", dpi=120)
    pyplot.close(figure)


def scaled_probabilities(logits: Tensor, temperature: float) -> Tensor:
    return torch.softmax(logits / temperature, -1)


def score_text(model: GPTModel, tokenizer: Tokenizer, text: str) -> str:
    """Log-probability and perplexity of `text`, its first token given."""
    token_ids = encode(tokenizer, text)
    if len(token_ids) < 2:
        raise InputError(f"score={text!r} is one token: nothing is predicted; give a longer text")
    logprobs = token_logprobs(model, token_ids)
    total = math.fsum(logprobs)
    loss = -total / len(logprobs)
    return (
        f"tokens           {len(token_ids)} (the first is given, {len(logprobs)} are scored)\n"
        f"log-probability  {total:.4f}\n"
        f"loss             {loss:.5f}\n"
        f"perplexity       {perplexity(loss):.3f}"
    )
