"""Sampling rules as pure functions on logits (B, V): a token ruled out has logit minus infinity."""

import torch
from torch import Tensor

from gpt_pretrain.config import DecodingConfig


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep exactly the k largest logits of each row; of equal ones those with the lower ids. k >= V keeps
    all.
    """
    if k >= logits.shape[-1]:
        return logits
    order = torch.sort(logits, dim=-1, descending=True, stable=True).indices
    return logits.scatter(-1, order[:, k:], -torch.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest most likely tokens whose probabilities add up to at least p: one token always stays.

    Source: nucleus sampling, Holtzman et al. 2020.
    """
    if p >= 1:
        return logits
    ordered, order = torch.sort(logits, dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # what more likely tokens hold already
    ruled_out = before >= p
    ruled_out[:, 0] = False
    return logits.masked_fill(torch.zeros_like(ruled_out).scatter(-1, order, ruled_out), -torch.inf)


def filtered(logits: Tensor, config: DecodingConfig) -> Tensor:
    """Every configured filter in the book's order: before the temperature."""
    if config.top_k is not None:
        logits = top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = top_p(logits, config.top_p)
    return logits


def choose(logits: Tensor, config: DecodingConfig, generators: list[torch.Generator]) -> Tensor:
    """The next token (B,) of each row: filters, temperature, softmax, draw. Row i draws from generator i.

    Temperature 0 is the most likely token, the first of equal ones.
    """
    if config.temperature == 0:
        return logits.argmax(-1)
    probabilities = (filtered(logits.float(), config) / config.temperature).softmax(-1)
    draws = [
        torch.multinomial(row, 1, generator=generator)
        for row, generator in zip(probabilities.cpu(), generators, strict=True)
    ]
    return torch.cat(draws).to(logits.device)
