"""Next-token loss and the quantities derived from it. All losses are in nats per token."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100  # a target that no loss counts
PART = 2**24  # logits that are worked on in float32 at a time, where they are narrower


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, T, V) against targets (B, T); `IGNORED` targets do not count."""
    # (B, T, V) -> (B * T, V), in float32 whatever precision the model computes in
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)


def multiplied_in(x: Tensor) -> torch.dtype:
    """The type that products with `x` are worked out in: autocast's where it is on, else its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def head_loss(features: Tensor, weight: Tensor, targets: Tensor, multiple: int = 1) -> Tensor:
    """`next_token_loss` of the logits that the head's weight (V, C) makes of features (B, T, C).

    With `multiple` they have as many columns as the next multiple of it: odd rows are multiplied slowly.
    The added ones are -inf: no loss, no gradient, nothing stored.
    """
    added = -len(weight) % multiple
    if not added:
        return next_token_loss(F.linear(features, weight), targets)
    weight = weight.to(multiplied_in(features))
    bias = F.pad(weight.new_zeros(len(weight)), (0, added), value=-math.inf)
    return next_token_loss(F.linear(features, F.pad(weight, (0, 0, 0, added)), bias), targets)


def head_loss_in_place(features: Tensor, weight: Tensor, targets: Tensor, multiple: int = 1) -> Tensor:
    """The same loss. The logits are one tensor, over which their gradient is written: no copy in float32,
    none filled with zeros. Only its first derivative is known.
    """
    return _HeadLoss.apply(features.flatten(0, 1), weight, targets.flatten(), multiple)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, targets: Tensor, multiple: int) -> Tensor:
        dtype = multiplied_in(features)
        narrow, head = features.to(dtype), weight.to(dtype)
        logits = _padded_logits(narrow, head, multiple)  # (N, C) -> (N, V or more)
        # In float32 all rows at once; of narrower ones copies are made, so a part at a time.
        rows = len(logits) if dtype == torch.float32 else max(1, PART // len(weight))
        places = targets.clamp(min=0)[:, None]  # (N, 1), like the two below
        losses = torch.cat(
            [_in_place(*part) for part in zip(logits.split(rows), places.split(rows), strict=True)]
        )
        counted = (targets != IGNORED)[:, None]
        share = counted / counted.sum()
        ctx.save_for_backward(narrow, head, logits, share)
        ctx.dtypes = features.dtype, weight.dtype
        return (losses * share).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        narrow, head, in_logits, share = ctx.saved_tensors
        in_logits = in_logits[:, : len(head)]
        share = gradients[0] * share
        in_features = (in_logits @ head) * share  # (N, V) -> (N, C)
        in_weight = in_logits.T @ (narrow * share).to(narrow.dtype)  # (V, N) -> (V, C)
        return in_features.to(ctx.dtypes[0]), in_weight.to(ctx.dtypes[1]), None, None


def _padded_logits(features: Tensor, weight: Tensor, multiple: int) -> Tensor:
    """features (N, C) times weight (V, C) transposed, with columns of -inf up to a multiple."""
    n_words = len(weight)
    logits = features.new_empty(len(features), n_words + -n_words % multiple)
    torch.mm(features, weight.T, out=logits[:, :n_words])
    logits[:, n_words:] = -math.inf
    return logits


def _in_place(logits: Tensor, places: Tensor) -> Tensor:
    """Losses (n, 1) of logits (n, V), some of them -inf, which become the gradient of their sum."""
    numbers = logits.float()  # in float32 the logits themselves
    chosen, top = numbers.gather(1, places), numbers.amax(-1, keepdim=True)
    torch.softmax(numbers, -1, out=numbers)
    # The logarithm of the sum, by way of the largest: its probability is at least 1 / V.
    losses = top - numbers.amax(-1, keepdim=True).log() - chosen
    numbers.scatter_add_(1, places, numbers.new_full(places.shape, -1.0))
    if numbers is not logits:
        logits.copy_(numbers)
    return losses


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
    """The loss in bits for each byte of UTF-8 text: comparable across tokenizers. Infinite without a byte."""
    return loss / math.log(2) / bytes_per_token if bytes_per_token else math.inf  # nats to bits
