"""Next-token loss and the quantities derived from it. All losses are in nats per token."""

import math

from torch import Tensor
from torch.nn import functional as F

IGNORED = -100  # a target that no loss counts


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, T, V) against targets (B, T); `IGNORED` targets do not count."""
    # (B, T, V) -> (B * T, V), in float32 whatever precision the model computes in
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)


def summed_token_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy and the number of targets counted: what a mean weighted by tokens is made of."""
    # (B, T, V) -> (B * T, V)
    total = F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total, (targets != IGNORED).sum()


def log_probabilities(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Log-probability (N,) that logits (N, V) give to each of the tokens (N,)."""
    # (N, V) -> (N, 1) -> (N,)
    return logits.gather(-1, token_ids[:, None])[:, 0] - logits.logsumexp(-1)


def perplexity(loss: float) -> float:
    """exp(loss); infinite where that leaves the range of a float."""
    return math.exp(loss) if loss < 700 else math.inf  # a float ends at exp(709.8)


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """The loss in bits for each byte of UTF-8 text: comparable across tokenizers."""
    return loss / math.log(2) / bytes_per_token  # nats to bits
