"""Penalties on hand-made logits."""

import torch

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.penalties import (
    count_penalty,
    no_repeat_ngram,
    penalised,
    repetition_penalty,
    sequence_bias,
)

NONE = -torch.inf


def test_repetition_divides_positive_and_multiplies_negative_logits_once_a_token():
    logits = torch.tensor([[2.0, -2.0, 1.0, -1.0], [2.0, -2.0, 1.0, -1.0]])
    changed = repetition_penalty(logits, [[0, 1, 1], [2]], 2.0)
    assert changed.tolist() == [[1.0, -4.0, 1.0, -1.0], [2.0, -2.0, 0.5, -1.0]]
    assert logits[0].tolist() == [2.0, -2.0, 1.0, -1.0]  # the given ones are left alone


def test_presence_counts_once_and_frequency_each_time():
    changed = count_penalty(torch.zeros(2, 4), [[0, 1, 1], []], 0.5, 0.25)
    assert changed.tolist() == [[-0.75, -1.0, 0.0, 0.0], [0.0] * 4]


def test_an_ngram_never_comes_twice():
    history = [[1, 2, 3, 1, 2], [3, 1, 2, 0, 1]]
    assert no_repeat_ngram(torch.zeros(2, 4), history, 3).tolist() == [[0, 0, 0, NONE], [0, 0, 0, 0]]
    assert no_repeat_ngram(torch.zeros(2, 4), history, 1).tolist() == [[0, NONE, NONE, NONE], [NONE] * 4]
    assert no_repeat_ngram(torch.zeros(2, 4), history, 9).tolist() == [[0] * 4] * 2


def test_a_bias_falls_on_the_last_token_where_the_others_stand_before_it():
    biases = {(3,): 1.0, (1, 2): -5.0, (0, 1, 2): NONE}
    changed = sequence_bias(torch.zeros(3, 4), [[0, 1], [1], [2]], biases)
    assert changed.tolist() == [[0, 0, NONE, 1], [0, 0, -5, 1], [0, 0, 0, 1]]


def test_the_text_cannot_end_before_min_new_tokens():
    config = DecodingConfig(min_new_tokens=2)
    changed = penalised(torch.zeros(2, 3), [[1, 1, 1], [1, 1, 1]], [2, 1], config, 0)
    assert changed.tolist() == [[NONE, 0, 0], [0, 0, 0]]


def test_presence_looks_at_new_tokens_and_repetition_at_the_prompt_too():
    history, n_prompt = [[1, 2]], [1]
    counted = penalised(torch.ones(1, 3), history, n_prompt, DecodingConfig(presence_penalty=1.0), None)
    assert counted.tolist() == [[1, 1, 0]]
    repeated = penalised(torch.ones(1, 3), history, n_prompt, DecodingConfig(repetition_penalty=2.0), None)
    assert repeated.tolist() == [[1, 0.5, 0.5]]
