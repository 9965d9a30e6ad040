"""Log-probabilities of a text against the model's own, token by token."""

import pytest
import torch

from gpt_pretrain.decoding.scoring import next_token_logits, token_logprobs
from gpt_pretrain.errors import InputError


@torch.inference_mode()
def test_each_token_is_scored_given_those_before_it(model):
    token_ids = [5, 9, 2, 33, 7, 60]
    for at, logprob in enumerate(token_logprobs(model, token_ids), 1):
        alone = model(torch.tensor([token_ids[:at]]))[0, -1].log_softmax(-1)[token_ids[at]]
        assert logprob == pytest.approx(float(alone), abs=1e-5)


@pytest.mark.parametrize("n_tokens", [2, 12, 13, 14, 18, 19, 50])
@torch.inference_mode()
def test_a_long_text_is_scored_once_a_token_with_half_a_context_at_least(short_model, n_tokens):
    token_ids = [(11 * at) % 61 for at in range(n_tokens)]
    scored = token_logprobs(short_model, token_ids)
    assert len(scored) == n_tokens - 1
    for at, logprob in enumerate(scored, 1):
        start = 0 if at <= 12 else 6 * -(-(at - 12) // 6)  # the first window that predicts it
        seen = token_ids[start:at]
        assert len(seen) >= min(at, 6)
        alone = short_model(torch.tensor([seen]))[0, -1].log_softmax(-1)[token_ids[at]]
        assert logprob == pytest.approx(float(alone), abs=1e-4)


def test_the_next_token_is_predicted_from_the_last_context(short_model):
    token_ids = list(range(30))
    assert torch.allclose(
        next_token_logits(short_model, token_ids), next_token_logits(short_model, token_ids[-12:])
    )


def test_nothing_is_predicted_after_nothing(short_model):
    with pytest.raises(InputError, match="a prompt has no token"):
        next_token_logits(short_model, [])
