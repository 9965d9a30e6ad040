"""Contrastive search: the likely token whose meaning is least like what stands there already."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.choose import exhausted
from gpt_pretrain.decoding.continuation import Continuation, Limits, Rule, apply
from gpt_pretrain.decoding.sequences import Sequences
from gpt_pretrain.loss import log_probabilities
from gpt_pretrain.model import GPTModel


@torch.inference_mode()
def contrastive_search(
    model: GPTModel, prompt: Sequence[int], config: DecodingConfig, limits: Limits, rules: Sequence[Rule]
) -> Continuation:
    """One continuation of `prompt`: each token v maximises (1 - alpha) p(v) - alpha max_j cos(h_v, h_j).

    v is one of the `top_k` most likely tokens, h_v the features that the output head would read after it, h_j
    those of the tokens before it. The temperature plays no part. Source: Su et al. 2022, equation 5.
    """
    assert config.penalty_alpha is not None
    row = Continuation(prompt_token_ids=list(prompt))
    sequences = Sequences(model, [prompt], room=config.max_new_tokens, slide=config.slide, keep_hidden=True)
    logits = sequences.logits()
    while row.finish_reason is None:
        shaped = apply(logits, sequences.tokens, [len(prompt)], config, limits.end_of_text_id, rules)
        if all(exhausted(shaped)):
            row.finish_reason = "ruled_out"
            break
        # (1, V) -> (k,), and fewer where penalties leave fewer: topk then takes what is ruled out.
        likely, ids = shaped.softmax(-1)[0].topk(min(config.top_k or 1, shaped.shape[-1]))
        likely, ids = likely[likely > 0], ids[likely > 0]
        # A copy of the text for each candidate: one forward pass gives the features after all of them,
        # and the logits of the next step.
        sequences.select([0] * len(ids))
        sequences.append(ids.tolist())
        after = sequences.logits()  # of each candidate, (k, V)
        scores = (1 - config.penalty_alpha) * likely - config.penalty_alpha * _likeness(sequences.hidden)
        best = int(scores.argmax())
        # The logprob is the model's own, not that of the penalised logits.
        row.add(int(ids[best]), float(log_probabilities(logits, ids[best : best + 1])), limits)
        sequences.select([best])
        logits = after[best : best + 1]  # (k, V) -> (1, V)
    return row


def _likeness(hidden: Tensor) -> Tensor:
    """The largest cosine between the last token's features and any earlier one's, (k, T, C) -> (k,)."""
    hidden = F.normalize(hidden.float(), dim=-1)
    if hidden.shape[1] == 1:  # a context of one token: nothing to be like
        return hidden.new_zeros(len(hidden))
    # (k, T - 1, C) @ (k, C, 1) -> (k, T - 1, 1) -> (k,)
    return (hidden[:, :-1] @ hidden[:, -1:].mT)[..., 0].amax(-1)
