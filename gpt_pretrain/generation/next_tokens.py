"""What the model expects next, as a table and a picture, and how likely it finds a text."""

import math
from pathlib import Path

from gpt_pretrain.decoding.picture import draw_next_tokens
from gpt_pretrain.decoding.scoring import next_token_logits, token_logprobs
from gpt_pretrain.decoding.text import encode
from gpt_pretrain.errors import InputError
from gpt_pretrain.loss import perplexity
from gpt_pretrain.model import GPTModel
from gpt_pretrain.tokenizer import Tokenizer, decode


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
    logits = next_token_logits(model, encode(tokenizer, prompt))
    ids = logits.topk(min(n, len(logits))).indices.tolist()
    draw_next_tokens(logits, [decode(tokenizer, [id_]) for id_ in ids], file)


def score_text(model: GPTModel, tokenizer: Tokenizer, text: str) -> str:
    """Log-probability and perplexity of `text`, its first token given."""
    token_ids = encode(tokenizer, text)
    if len(token_ids) < 2:
        raise InputError(
            f"score={text!r} has fewer than two tokens: nothing is predicted; give a longer text"
        )
    logprobs = token_logprobs(model, token_ids)
    total = math.fsum(logprobs)
    loss = -total / len(logprobs)
    return (
        f"tokens           {len(token_ids)} (the first is given, {len(logprobs)} are scored)\n"
        f"log-probability  {total:.4f}\n"
        f"loss             {loss:.5f}\n"
        f"perplexity       {perplexity(loss):.7g}"
    )
