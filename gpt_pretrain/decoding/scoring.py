"""How likely the model finds a given text."""

from collections.abc import Sequence

import torch

from gpt_pretrain.errors import InputError
from gpt_pretrain.loss import log_probabilities
from gpt_pretrain.model import GPTModel


@torch.inference_mode()
def token_logprobs(model: GPTModel, token_ids: Sequence[int]) -> list[float]:
    """Log-probability of each token but the first, given those before it: one number less than tokens.

    A text longer than the context is read in windows that overlap by half, each token counted in the first
    one that holds it, so that all but the first window's tokens see half a context at least.
    """
    context_length = model.config.context_length
    device = model.tok_emb.weight.device
    logprobs: list[float] = []
    start = 0
    while len(logprobs) < len(token_ids) - 1:
        window = torch.tensor(token_ids[start : start + context_length + 1], device=device)
        first = len(logprobs) - start  # the window's first target that is not counted yet
        # (1, T) -> (N, C) -> (N, V): the head reads only what is counted here.
        logits = model.out_head(model.features(window[None, :-1])[0, first:]).float()
        logprobs += log_probabilities(logits, window[1 + first :]).tolist()
        start += max(1, context_length // 2)  # a context of one token moves on too
    return logprobs


@torch.inference_mode()
def next_token_logits(model: GPTModel, token_ids: Sequence[int]) -> torch.Tensor:
    """Logits (V,) of the token after `token_ids`, of which the last `context_length` are read.

    Raises InputError where there are none.
    """
    if len(token_ids) == 0:
        raise InputError("a prompt has no token: give each at least one to continue from")
    window = torch.tensor(token_ids[-model.config.context_length :], device=model.tok_emb.weight.device)
    # (1, T) -> (1, T, C) -> (C,) -> (V,)
    return model.out_head(model.features(window[None])[0, -1]).float()
