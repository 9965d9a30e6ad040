"""What is changed in logits (B, V) because of the tokens that stand before: pure functions of both.

A history is a row's token ids so far. A token ruled out has logit minus infinity.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gpt_pretrain.config import DecodingConfig

History = Sequence[Sequence[int]]


def repetition_penalty(logits: Tensor, history: History, penalty: float) -> Tensor:
    """Divide the positive logits of tokens in the history by `penalty`, multiply the negative ones.

    Source: CTRL, Keskar et al. 2019.
    """
    logits = logits.clone()
    for row, tokens in zip(logits, history, strict=True):
        ids = _ids(tokens, logits)  # each once, however often it came
        row[ids] = torch.where(row[ids] < 0, row[ids] * penalty, row[ids] / penalty)
    return logits


def count_penalty(logits: Tensor, history: History, presence: float, frequency: float) -> Tensor:
    """Take `presence` off every token in the history and `frequency` for each time that it is there.

    Source: OpenAI's API reference.
    """
    logits = logits.clone()
    for row, tokens in zip(logits, history, strict=True):
        counts = torch.bincount(torch.tensor(tokens, dtype=torch.long), minlength=0).to(logits.device)
        ids = counts.nonzero()[:, 0]
        row[ids] -= presence + frequency * counts[ids]
    return logits


def no_repeat_ngram(logits: Tensor, history: History, size: int) -> Tensor:
    """Rule out every token that would complete a run of `size` tokens which the history holds already.

    Source: Paulus et al. 2017.
    """
    logits = logits.clone()
    for row, tokens in zip(logits, history, strict=True):
        # The size - 1 tokens at the end: none for 1, so that every token of the history completes a run.
        start = list(tokens[len(tokens) - size + 1 :]) if len(tokens) >= size else None
        repeats = [
            tokens[at + size - 1]
            for at in range(len(tokens) - size + 1)
            if list(tokens[at : at + size - 1]) == start
        ]
        row[_ids(repeats, logits)] = -torch.inf
    return logits


def sequence_bias(logits: Tensor, history: History, biases: Mapping[tuple[int, ...], float]) -> Tensor:
    """Add a sequence's bias to its last token wherever the tokens before it end the history."""
    logits = logits.clone()
    for row, tokens in zip(logits, history, strict=True):
        for sequence, bias in biases.items():
            before = len(sequence) - 1
            if len(tokens) >= before and tuple(tokens[len(tokens) - before :]) == sequence[:-1]:
                row[sequence[-1]] += bias
    return logits


def penalised(
    logits: Tensor, history: History, n_prompt: Sequence[int], config: DecodingConfig, end_id: int | None
) -> Tensor:
    """Every configured penalty, in transformers' order. Row i's new text begins at `n_prompt[i]`.

    Presence and frequency look at the new text only, repetition and n-grams at the prompt too.
    """
    # Each gives new logits: the given ones are needed as the model's own.
    new = [tokens[start:] for tokens, start in zip(history, n_prompt, strict=True)]
    if config.repetition_penalty != 1:
        logits = repetition_penalty(logits, history, config.repetition_penalty)
    if config.presence_penalty or config.frequency_penalty:
        logits = count_penalty(logits, new, config.presence_penalty, config.frequency_penalty)
    if config.no_repeat_ngram_size:
        logits = no_repeat_ngram(logits, history, config.no_repeat_ngram_size)
    if config.min_new_tokens and end_id is not None:
        early = torch.tensor([len(tokens) < config.min_new_tokens for tokens in new], device=logits.device)
        logits = logits.clone()
        logits[early, end_id] = -torch.inf
    return logits


def _ids(tokens: Sequence[int], logits: Tensor) -> Tensor:
    return torch.tensor(sorted(set(tokens)), dtype=torch.long, device=logits.device)
