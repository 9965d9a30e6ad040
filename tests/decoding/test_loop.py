"""The loop: batches, the cache, the window, what ends a row; and 3,000 random calls."""

import random
from dataclasses import replace

import pytest
import torch

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.config.fields import check_ranges
from gpt_pretrain.decoding.continuation import Limits
from gpt_pretrain.decoding.contrastive import contrastive_search
from gpt_pretrain.decoding.loop import continue_tokens, steps
from gpt_pretrain.decoding.sequences import Sequences, window_start
from gpt_pretrain.errors import ArtifactError, InputError
from tests.decoding.conftest import END, build

RAGGED = [[5, 9, 2], [7], [3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [30, 41], [60] * 7]


def window(tokens, context_length, slide):
    """The tokens that the rule reads, found by moving on `slide` tokens while too many are left."""
    start, slide = 0, min(slide, context_length)
    while len(tokens) - start > context_length:
        start += slide
    return tokens[start:]


@torch.inference_mode()
def recomputed(model, prompt, config, end=None):
    """Greedy decoding without a cache, a batch or any of the engine."""
    tokens = list(prompt)
    for _ in range(config.max_new_tokens):
        logits = model(torch.tensor([window(tokens, model.config.context_length, config.slide)]))
        tokens.append(int(logits[0, -1].argmax()))
        if tokens[-1] == end:
            break
    return tokens[len(prompt) :]


def greedy(n, **settings):
    return DecodingConfig(temperature=0.0, max_new_tokens=n, **settings)


@pytest.mark.parametrize("slide", [1, 2, 5, 12])
@pytest.mark.parametrize("n_prompt", [1, 11, 12, 13, 40])
def test_the_cache_equals_recomputing_within_and_beyond_the_context(short_model, n_prompt, slide):
    prompt = [(7 * at) % 61 for at in range(n_prompt)]
    config = greedy(30, slide=slide)
    [[row]] = continue_tokens(short_model, [prompt], config)
    assert row.token_ids == recomputed(short_model, prompt, config)


@pytest.mark.parametrize("slide", [1, 3])
def test_a_ragged_batch_equals_its_rows_alone_also_beyond_the_context(short_model, slide):
    config = greedy(25, slide=slide)
    end = recomputed(short_model, RAGGED[0], config)[8]
    rows = continue_tokens(short_model, RAGGED, config, end_of_text_id=end)
    for prompt, [row] in zip(RAGGED, rows, strict=True):
        assert row.token_ids == recomputed(short_model, prompt, config, end=end)
    assert len({len(row.token_ids) for [row] in rows}) > 1  # some ended before others


def test_logits_of_a_ragged_batch_are_those_of_its_rows_alone(model):
    together = Sequences(model, RAGGED, room=8)
    for _ in range(8):
        with torch.inference_mode():
            logits = together.logits()
            for row, tokens in enumerate(together.tokens):
                alone = model(torch.tensor([tokens]))[0, -1]
                assert torch.allclose(logits[row], alone, rtol=0, atol=1e-5)
        together.append(logits.argmax(-1).tolist())


def test_a_rows_sample_does_not_depend_on_its_neighbours(model):
    config = DecodingConfig(max_new_tokens=12, temperature=1.5, top_p=0.95, seed=7)
    together = continue_tokens(model, RAGGED, config, end_of_text_id=END)
    for prompt, [row] in zip(RAGGED, together, strict=True):
        [[alone]] = continue_tokens(model, [prompt], config, end_of_text_id=END)
        assert row.token_ids == alone.token_ids
        assert row.finish_reason == alone.finish_reason


def test_several_sequences_of_a_prompt_are_drawn_with_consecutive_seeds(model):
    config = DecodingConfig(max_new_tokens=10, num_return_sequences=3, seed=4)
    [rows] = continue_tokens(model, [[1, 2]], config)
    single = replace(config, num_return_sequences=1)
    alone = [continue_tokens(model, [[1, 2]], replace(single, seed=seed))[0][0] for seed in (4, 5, 6)]
    assert [row.token_ids for row in rows] == [row.token_ids for row in alone]
    assert len({tuple(row.token_ids) for row in rows}) == 3


def test_a_row_ends_with_its_end_of_text_its_stop_or_its_length(model):
    [[ended]] = continue_tokens(model, [RAGGED[0]], greedy(30), end_of_text_id=12)
    assert ended.finish_reason == "end_of_text"
    assert ended.token_ids.index(12) == len(ended.token_ids) - 1
    [[long]] = continue_tokens(model, [RAGGED[0]], greedy(6))
    assert (long.finish_reason, len(long.token_ids)) == ("length", 6)
    third = long.token_ids[2]
    [[stopped]] = continue_tokens(model, [RAGGED[0]], greedy(6), stop=lambda new: new[-1] == third)
    assert (stopped.finish_reason, stopped.token_ids[-1]) == ("stop", third)


def test_logprobs_are_the_models_own_whatever_the_settings(model):
    config = DecodingConfig(max_new_tokens=5, temperature=0.3, top_k=3, repetition_penalty=1.5)
    [[row]] = continue_tokens(model, [[1, 2, 3]], config)
    tokens = [*row.prompt_token_ids, *row.token_ids]
    expected = model(torch.tensor([tokens]))[0].log_softmax(-1)
    for at, (token, logprob) in enumerate(zip(row.token_ids, row.logprobs, strict=True)):
        assert logprob == pytest.approx(float(expected[2 + at, token]), abs=1e-4)


@pytest.mark.parametrize("strategy", [{}, {"num_beams": 2}, {"penalty_alpha": 0.5, "top_k": 2}])
def test_a_row_without_a_token_left_says_so(model, strategy):
    config = greedy(100, no_repeat_ngram_size=1, **strategy)
    [[row, *_]] = continue_tokens(model, [[1]], config)
    assert row.finish_reason == "ruled_out"
    assert sorted(row.token_ids) == [token for token in range(61) if token != 1]


@pytest.mark.parametrize("strategy", [{}, {"num_beams": 2}, {"penalty_alpha": 0.5, "top_k": 2}])
def test_a_prompt_without_a_token_is_refused_and_no_prompt_gives_nothing(model, strategy):
    for prompts in ([[]], [[5, 9], []]):
        with pytest.raises(InputError, match="has no token"):
            continue_tokens(model, prompts, greedy(3, **strategy))
    assert continue_tokens(model, [], greedy(3, **strategy)) == []


def test_a_model_that_returns_no_numbers_is_refused():
    broken = build()
    torch.nn.init.constant_(broken.final_norm.weight, torch.nan)
    for settings in ({}, {"num_beams": 2}, {"penalty_alpha": 0.5, "top_k": 2}):
        with pytest.raises(ArtifactError, match="not numbers"):
            continue_tokens(broken, [[1]], greedy(3, **settings))


@torch.inference_mode()
def contrastive_by_the_formula(model, prompt, n_new, k, alpha):
    """Su et al. 2022, equation 5, on whole sequences."""
    tokens, length = list(prompt), model.config.context_length
    for _ in range(n_new):
        probabilities = model(torch.tensor([tokens[-length:]]))[0, -1].softmax(-1)
        scores = {}
        for candidate in probabilities.topk(k).indices.tolist():
            hidden = model.features(torch.tensor([[*tokens, candidate][-length:]]))[0]
            likeness = torch.cosine_similarity(hidden[-1:], hidden[:-1]).max()
            scores[candidate] = float((1 - alpha) * probabilities[candidate] - alpha * likeness)
        tokens.append(max(scores, key=scores.__getitem__))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("alpha", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("k", [1, 4, 8])
def test_contrastive_search_is_the_papers_formula(model, short_model, k, alpha):
    for which, prompt in ((model, [5, 9, 2]), (short_model, [3, 1, 4, 1, 5]), (short_model, [2] * 15)):
        config = greedy(16, penalty_alpha=alpha, top_k=k)
        row = contrastive_search(which, prompt, config, Limits(max_new_tokens=16), ())
        assert row.token_ids == contrastive_by_the_formula(which, prompt, 16, k, alpha)


def test_beams_are_drawn_by_temperature(model):
    config = DecodingConfig(num_beams=3, num_return_sequences=3, max_new_tokens=8, temperature=2.0)
    draws = [continue_tokens(model, [[1]], replace(config, seed=seed))[0] for seed in (0, 0, 1)]
    texts = [[row.token_ids for row in rows] for rows in draws]
    assert texts[0] == texts[1] != texts[2]
    near_zero = continue_tokens(model, [[1]], replace(config, temperature=1e-4))[0][0]
    assert near_zero.token_ids == continue_tokens(model, [[1]], greedy(8, num_beams=3))[0][0].token_ids


def test_a_search_that_runs_out_of_tokens_returns_the_best_first(model):
    def rule(logits, history, n_prompt):
        """Tokens 3 and 5, and END as the first one."""
        spare = torch.tensor(
            [token in (3, 5) or (token == END and len(history[0]) == 1) for token in range(61)]
        )
        return logits.masked_fill(~spare, -torch.inf)

    for prompt in (20, 21):
        for length_penalty in (0.0, 2.0):
            config = greedy(9, num_beams=4, num_return_sequences=4, no_repeat_ngram_size=1)
            config.length_penalty = length_penalty
            [rows] = continue_tokens(model, [[prompt]], config, end_of_text_id=END, rules=[rule])
            reasons = {tuple(row.token_ids): row.finish_reason for row in rows}
            assert reasons == {(END,): "end_of_text", (3, 5): "ruled_out", (5, 3): "ruled_out"}
            scores = [sum(row.logprobs) / len(row.token_ids) ** length_penalty for row in rows]
            assert scores == sorted(scores, reverse=True)


def random_settings(rng):
    maybe = lambda value, off: value if rng.random() < 0.3 else off  # noqa: E731
    return DecodingConfig(
        max_new_tokens=rng.randint(1, 6),
        min_new_tokens=maybe(rng.randint(0, 7), 0),
        temperature=rng.choice([0.0, 0.0, 1e-300, 1e-6, 0.7, 1.0, 100.0, 1e300]),
        top_k=maybe(rng.choice([0, 1, 3, 61, 1000]), None),
        top_p=maybe(rng.choice([1e-9, 0.5, 1.0]), None),
        min_p=maybe(rng.choice([0.0, 0.3, 1.0]), None),
        typical_p=maybe(rng.choice([1e-9, 0.5, 1.0]), None),
        repetition_penalty=maybe(rng.choice([1e-6, 0.5, 1.2, 1e6]), 1.0),
        presence_penalty=maybe(rng.uniform(-2, 2), 0.0),
        frequency_penalty=maybe(rng.uniform(-2, 2), 0.0),
        no_repeat_ngram_size=maybe(rng.randint(0, 4), 0),
        num_beams=maybe(rng.randint(1, 5), 1),
        length_penalty=rng.choice([-1.0, 0.0, 1.0, 2.0]),
        early_stopping=rng.choice([False, True, "never"]),
        num_return_sequences=maybe(rng.randint(1, 4), 1),
        penalty_alpha=maybe(rng.choice([0.0, 0.5, 1.0]), None),
        slide=rng.choice([1, 1, 4, 100]),
        seed=rng.choice([0, 1, 2**63 - 1]),
    )


@pytest.mark.parametrize(("seed", "calls"), [(0, 400), pytest.param(1, 3000, marks=pytest.mark.slow)])
def test_random_calls_raise_only_documented_errors_and_keep_the_promises(short_model, seed, calls):
    rng, n_refused, n_ran = random.Random(seed), 0, 0
    while n_ran < calls:
        config = random_settings(rng)
        prompts = [
            [rng.randrange(61) for _ in range(rng.choice([1, 3, 11, 14]))] for _ in range(rng.randint(1, 3))
        ]
        try:
            check_ranges(config, "decoding.")
            config.check()
        except InputError:
            n_refused += 1
            continue
        n_ran += 1
        rows = continue_tokens(short_model, prompts, config, end_of_text_id=END)
        assert len(rows) == len(prompts)
        for group in rows:
            assert 1 <= len(group) <= config.num_return_sequences
            if config.num_beams > 1:
                assert len({tuple(row.token_ids) for row in group}) == len(group)
            for row in group:
                assert len(row.token_ids) == len(row.logprobs) <= config.max_new_tokens
                assert row.finish_reason in ("end_of_text", "stop", "length", "ruled_out")
                assert all(token < 61 for token in row.token_ids)
        _check_equivalents(short_model, prompts, config, rows)
    assert n_refused > calls // 30


def _check_equivalents(model, prompts, config, rows):
    def ids(settings):
        return [
            [row.token_ids for row in group]
            for group in continue_tokens(model, prompts, settings, end_of_text_id=END)
        ]

    given = [[row.token_ids for row in group] for group in rows]
    plain = not config.penalty_alpha and config.num_beams == 1
    if plain and config.temperature > 0 and config.num_return_sequences == 1:
        if config.top_k == 1:
            assert given == ids(replace(config, temperature=0.0))
        if config.top_k in (61, 1000):
            assert given == ids(replace(config, top_k=None))
    if plain and config.temperature == 0 and _has_no_penalty(config):
        for prompt, [tokens] in zip(prompts, given, strict=True):
            assert tokens == recomputed(model, prompt, config, end=END)


def _has_no_penalty(config):
    return (
        not (config.no_repeat_ngram_size or config.presence_penalty or config.frequency_penalty)
        and config.repetition_penalty == 1
        and config.min_new_tokens == 0
    )


def test_window_start_depends_on_the_length_alone():
    for slide in (1, 2, 3, 8):
        for length in range(1, 40):
            tokens = list(range(length))
            assert tokens[window_start(length, 8, slide) :] == window(tokens, 8, slide)


def test_steps_yield_every_token_as_it_comes(model):
    seen = [len(row.token_ids) for (row,) in steps(model, [[1, 2]], greedy(5))]
    assert seen == [1, 2, 3, 4, 5]
