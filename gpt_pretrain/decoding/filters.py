"""Filters as pure functions on logits (B, V): a token ruled out has logit minus infinity.

Each keeps at least one token of a row that has one. They read the logits before the temperature, as in the
book; transformers divides by the temperature first, so there top_p, min_p and typical_p keep other sets at a
temperature other than 1.
"""

import torch
from torch import Tensor

from gpt_pretrain.config import DecodingConfig


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep exactly the k largest logits of each row, of equal ones the lower ids; k >= V keeps all.

    transformers keeps every token that ties with the k-th.
    """
    if k >= logits.shape[-1]:
        return logits
    kth = logits.topk(k, dim=-1).values[:, -1:]  # a whole sort takes ten times as long
    above, ties = logits > kth, logits == kth
    # (B, 1): how many of those that tie with the k-th find room, by rising id
    room = k - above.sum(-1, keepdim=True)
    return logits.masked_fill(~(above | (ties & (ties.cumsum(-1) <= room))), -torch.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest most likely tokens whose probabilities add up to at least p: one token always stays.

    Of equal logits the lower ids come first. Source: nucleus sampling, Holtzman et al. 2020.
    """
    if p >= 1:
        return logits
    # A descending sort turned round: an ascending one, if stable, would drop the lower of equal ids.
    order = torch.sort(logits, dim=-1, descending=True, stable=True).indices.flip(-1)  # least likely first
    # Summed from the least likely up, as in transformers, so that rounding falls the same way.
    ruled_out = softmax(logits.gather(-1, order)).cumsum(-1) <= 1 - p
    ruled_out[:, -1] = False  # for the smallest p, 1 - p is 1 in float32
    # from the order of likelihood back to that of ids, (B, V)
    return logits.masked_fill(torch.zeros_like(ruled_out).scatter(-1, order, ruled_out), -torch.inf)


def min_p(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens at least p times as likely as the most likely one. Source: Nguyen et al. 2024."""
    probabilities = softmax(logits)
    return logits.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), -torch.inf)


def typical_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest tokens that add up to at least p, taken by how near their surprise is to its mean, the
    entropy. Those exactly as near as the last one stay too.

    Source: Meister et al. 2023.
    """
    if p >= 1:
        return logits
    surprise = -_without_infinity(logits).log_softmax(-1)
    # A ruled-out token's 0 * inf counts 0.
    entropy = (surprise.neg().exp() * surprise).nansum(-1, keepdim=True)
    distance = (surprise - entropy).abs()
    ordered, order = torch.sort(distance, dim=-1, stable=True)
    # (B, 1): tokens before the one that reaches p; none does where all together round to less
    n_before = (softmax(logits.gather(-1, order)).cumsum(-1) < p).sum(-1, keepdim=True)
    furthest = ordered.gather(-1, n_before.clamp(max=logits.shape[-1] - 1))
    return logits.masked_fill(distance > furthest, -torch.inf)


def filtered(logits: Tensor, config: DecodingConfig) -> Tensor:
    """Every configured filter, one after another."""
    # Each sees what those before it left, its probabilities shared out anew.
    if config.top_k:
        logits = top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = top_p(logits, config.top_p)
    if config.min_p:
        logits = min_p(logits, config.min_p)
    if config.typical_p is not None:
        logits = typical_p(logits, config.typical_p)
    return logits


def softmax(logits: Tensor) -> Tensor:
    """Probabilities (B, V). Where a row has infinite logits, they share all of the probability."""
    return _without_infinity(logits).softmax(-1)


def _without_infinity(logits: Tensor) -> Tensor:
    """The same distribution without infinite logits: 0 in their place, minus infinity in all others'."""
    certain = logits == torch.inf
    if not certain.any():
        return logits
    return torch.where(certain.any(-1, keepdim=True), torch.where(certain, 0.0, -torch.inf), logits)
