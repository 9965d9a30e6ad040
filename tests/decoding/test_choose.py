"""The draw: the book's counts, exact frequencies, limits."""

import math

import pytest
import torch

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.choose import choose, distribution, exhausted
from gpt_pretrain.errors import ArtifactError

# The book's vocabulary: closer every effort forward inches moves pizza toward you.
BOOK = torch.tensor([[4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79]])


@pytest.mark.parametrize(
    ("temperature", "counts"),
    [(1.0, [73, 0, 0, 582, 2, 0, 0, 343, 0]), (0.1, [0, 0, 0, 985, 0, 0, 0, 15, 0])],
)
def test_a_thousand_draws_with_seed_123_are_the_books(temperature, counts):
    generator, config = torch.Generator().manual_seed(123), DecodingConfig(temperature=temperature)
    drawn = [int(choose(BOOK, config, [generator])) for _ in range(1000)]
    assert torch.bincount(torch.tensor(drawn), minlength=9).tolist() == counts


def test_the_books_top_3_shares_its_probability():
    expected = torch.tensor([6.75, 6.28, 4.51]).softmax(0)
    assert torch.allclose(distribution(BOOK, DecodingConfig(top_k=3))[0, [3, 7, 0]], expected)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 4, "temperature": 2.0},
        {"top_p": 0.8, "temperature": 2.0},
        {"min_p": 0.05, "temperature": 4.0},
        {"typical_p": 0.7},
        {"top_k": 5, "top_p": 0.9, "min_p": 0.01, "temperature": 1.5},
    ],
)
def test_frequencies_pass_a_chi_square_test_against_the_exact_distribution(settings):
    config, n_draws = DecodingConfig(**settings), 4000
    logits = BOOK.double()
    survivors = _kept_by_hand(logits[0].tolist(), config)
    weights = {id_: math.exp(logits[0, id_] / config.temperature) for id_ in survivors}
    expected = {id_: n_draws * weight / sum(weights.values()) for id_, weight in weights.items()}
    rows = BOOK.repeat(n_draws, 1)
    generators = [torch.Generator().manual_seed(seed) for seed in range(n_draws)]
    drawn = torch.bincount(choose(rows, config, generators), minlength=9).tolist()
    assert {id_ for id_, count in enumerate(drawn) if count} <= set(expected)
    frequent = [id_ for id_, count in expected.items() if count >= 5]
    chi_square = sum((drawn[id_] - expected[id_]) ** 2 / expected[id_] for id_ in frequent)
    freedom = max(1, len(frequent) - 1)
    # Wilson and Hilferty: the 99.99th percentile of chi-square with that many degrees of freedom
    limit = freedom * (1 - 2 / (9 * freedom) + 3.719 * math.sqrt(2 / (9 * freedom))) ** 3
    assert chi_square < limit


def _kept_by_hand(logits, config):
    """Which tokens the filters leave, one token after another, on Python lists."""
    kept = sorted(range(len(logits)), key=lambda id_: -logits[id_])
    kept = kept[: config.top_k or len(kept)]
    if config.top_p is not None:
        shares, n_kept = _shares(logits, kept), 0
        while sum(shares[id_] for id_ in kept[:n_kept]) < config.top_p:
            n_kept += 1
        kept = kept[:n_kept]
    if config.min_p is not None:
        shares = _shares(logits, kept)
        kept = [id_ for id_ in kept if shares[id_] >= config.min_p * max(shares.values())]
    if config.typical_p is not None:
        shares = _shares(logits, kept)
        entropy = -sum(share * math.log(share) for share in shares.values())
        kept, n_kept = sorted(kept, key=lambda id_: abs(-math.log(shares[id_]) - entropy)), 0
        while sum(shares[id_] for id_ in kept[:n_kept]) < config.typical_p:
            n_kept += 1
        kept = kept[:n_kept]
    return kept


def _shares(logits, kept):
    total = sum(math.exp(logits[id_]) for id_ in kept)
    return {id_: math.exp(logits[id_]) / total for id_ in kept}


def test_temperature_0_and_top_k_1_both_take_the_first_of_the_most_likely():
    logits = torch.tensor([[1.0, 5.0, 5.0], [2.0, 0.0, 1.0]])
    generators = [torch.Generator(), torch.Generator()]
    assert choose(logits, DecodingConfig(temperature=0.0), generators).tolist() == [1, 0]
    assert choose(logits, DecodingConfig(top_k=1), generators).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-30, 1e30, 1e300])
def test_extreme_temperatures_do_not_overflow(temperature):
    logits = torch.tensor([[300.0, -300.0, 299.0, -torch.inf]])
    probabilities = distribution(logits, DecodingConfig(temperature=temperature))
    expected = [1.0, 0.0, 0.0, 0.0] if temperature < 1 else [1 / 3, 1 / 3, 1 / 3, 0.0]
    assert torch.allclose(probabilities, torch.tensor([expected]))


def test_a_row_draws_from_its_own_generator():
    def draw(rows, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return choose(torch.zeros(rows, 1000), DecodingConfig(), generators).tolist()

    assert draw(3, [1, 2, 3]) == [*draw(1, [1]), *draw(1, [2]), *draw(1, [3])]


def test_logits_that_are_no_numbers_are_refused_and_nothing_left_is_told():
    with pytest.raises(ArtifactError, match="not numbers"):
        exhausted(torch.tensor([[0.0, torch.nan]]))
    assert exhausted(torch.tensor([[-torch.inf, -torch.inf], [-torch.inf, 0.0]])) == [True, False]
