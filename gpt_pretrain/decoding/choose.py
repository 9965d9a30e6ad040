"""The choice of one token from its logits."""

import torch
from torch import Tensor

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.filters import filtered, softmax
from gpt_pretrain.errors import ArtifactError


def choose(logits: Tensor, config: DecodingConfig, generators: list[torch.Generator]) -> Tensor:
    """The next token (B,) of each row: filters, temperature, softmax, draw. Row i draws from generator i.

    Temperature 0 is the most likely token, the first of equal ones. No row may have all ruled out."""
    if config.temperature == 0:
        return logits.argmax(-1)
    probabilities = distribution(logits, config).cpu()  # where the generators draw
    draws = [
        torch.multinomial(row, 1, generator=generator)
        for row, generator in zip(probabilities, generators, strict=True)
    ]
    return torch.cat(draws).to(logits.device)


def distribution(logits: Tensor, config: DecodingConfig) -> Tensor:
    """Probabilities (B, V) that a token is drawn with, at a temperature above 0."""
    kept = filtered(logits, config)
    highest = kept.amax(-1, keepdim=True)
    # so that a tiny temperature cannot overflow
    shifted = torch.where(highest.isfinite(), kept - highest, kept)  # inf - inf is no number
    return softmax(shifted / divisor(config.temperature))


def divisor(temperature: float) -> float:
    """A temperature above 0 as float32 can divide by it: neither 0 nor infinity there."""
    return min(max(temperature, 1e-30), 1e30)


def exhausted(logits: Tensor) -> list[bool]:
    """Of each row, whether every token is ruled out. Raises ArtifactError where a logit is no number."""
    highest = logits.amax(-1)
    if bool(highest.isnan().any()):
        raise ArtifactError(
            "the model's logits are not numbers: its training diverged, or its file is damaged"
        )
    return (highest == -torch.inf).tolist()
