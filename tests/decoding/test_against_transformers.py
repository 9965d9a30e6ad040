"""Token for token what transformers generates from the same random weights."""

import itertools

import pytest
import torch

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.loop import continue_tokens
from tests.decoding.conftest import END

PROMPTS = [[5, 9, 2], [7, 7, 30, 41, 12], [60], [3, 1, 4, 1, 5, 9, 2, 6]]


def greedy(max_new_tokens=20, **settings):
    return DecodingConfig(temperature=0.0, max_new_tokens=max_new_tokens, **settings)


def theirs_continues(reference, prompt, **settings):
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": 20, "do_sample": False, **settings}
    rows = reference.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    return [_until_end(row[len(prompt) :].tolist()) for row in rows]


def _until_end(ids):
    return ids[: ids.index(END) + 1] if END in ids else ids


def ours_continues(model, prompt, config):
    return [row.token_ids for row in continue_tokens(model, [prompt], config, end_of_text_id=END)[0]]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.8},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 3, "repetition_penalty": 1.1},
        {"min_new_tokens": 15},
        {"min_new_tokens": 20, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
    ],
)
def test_greedy_with_penalties_equals_transformers(model, reference, settings):
    for prompt in PROMPTS:
        assert ours_continues(model, prompt, greedy(**settings)) == theirs_continues(
            reference, prompt, **settings
        )


@pytest.mark.parametrize("num_beams", range(1, 9))
def test_beam_search_equals_transformers_with_each_length_penalty_and_early_stopping(
    model, reference, num_beams
):
    some_ended_early = False
    for length_penalty, early_stopping in itertools.product(
        (-1.0, 0.0, 0.6, 1.0, 2.0), (False, True, "never")
    ):
        settings = {
            "num_beams": num_beams,
            "length_penalty": length_penalty,
            "early_stopping": early_stopping,
        }
        settings = settings if num_beams > 1 else {"num_beams": 1}
        n_best = {"num_return_sequences": num_beams, "max_new_tokens": 10}
        for prompt in PROMPTS[:2]:
            ours = ours_continues(model, prompt, greedy(**settings, **n_best))
            assert ours == theirs_continues(reference, prompt, **settings, **n_best), (settings, prompt)
            some_ended_early |= any(ids[-1] == END for ids in ours)
    assert some_ended_early or num_beams == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 12},
        {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "min_new_tokens": 5},
    ],
)
def test_beam_search_with_penalties_equals_transformers(model, reference, settings):
    for prompt in PROMPTS:
        ours = ours_continues(model, prompt, greedy(num_beams=4, num_return_sequences=3, **settings))
        assert ours == theirs_continues(reference, prompt, num_beams=4, num_return_sequences=3, **settings)
