"""Filters against transformers' warpers, on random rows with ties and infinities."""

import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from gpt_pretrain.decoding.filters import min_p, top_k, top_p, typical_p

N_ROWS, V = 10_000, 40
KINDS = ("continuous", "ties", "ruled out")


def rows(kind):
    """10,000 rows: real numbers; whole ones, full of ties; or with tokens that are ruled out already."""
    torch.manual_seed(KINDS.index(kind))
    logits = 3 * torch.randn(N_ROWS, V)
    if kind == "ties":
        logits = logits.round()
    if kind == "ruled out":
        gone = torch.rand(N_ROWS, V) < torch.rand(N_ROWS, 1)
        gone[:, 7] = False
        logits[gone] = -torch.inf
    return logits


def kept(logits):
    return logits > -torch.inf


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    ("ours", "warper"),
    [(top_p, TopPLogitsWarper), (min_p, MinPLogitsWarper), (typical_p, TypicalLogitsWarper)],
)
def test_the_tokens_that_survive_are_those_of_transformers(ours, warper, p, kind):
    logits = rows(kind)
    given, expected = ours(logits, p), warper(p)(None, logits)
    if ours is top_p and kind == "ties":  # which of equal ones stay is left open there: compare their logits
        given, expected = given.sort(-1).values, expected.sort(-1).values
    assert torch.equal(given, expected)
    assert kept(expected).any(-1).all()


def test_of_equal_logits_top_p_keeps_the_lower_ids():
    logits = torch.tensor([[0.0, 2.0, 2.0, 2.0, 2.0]])
    assert kept(top_p(logits, 0.4)).tolist() == [[False, True, True, False, False]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 2, 7, 39])
def test_top_k_keeps_what_transformers_keeps_but_exactly_k_of_it_where_logits_tie(k, kind):
    logits = rows(kind)
    ours, theirs = kept(top_k(logits, k)), kept(TopKLogitsWarper(k)(None, logits))
    assert (ours <= theirs).all()
    available = kept(logits).sum(-1).clamp(max=k)
    assert torch.equal(ours.sum(-1), available)
    untied = theirs.sum(-1) == available
    assert torch.equal(ours[untied], theirs[untied])
    assert untied.any()


def test_of_equal_logits_top_k_keeps_the_lower_ids():
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0], [5.0, 5.0, 5.0, 5.0, 5.0]])
    assert kept(top_k(logits, 3)).tolist() == [
        [False, True, True, True, False],
        [True, True, True, False, False],
    ]


@pytest.mark.parametrize(
    ("ours", "off"), [(top_k, V), (top_k, V + 1), (top_p, 1.0), (min_p, 0.0), (typical_p, 1.0)]
)
def test_a_filter_at_its_widest_changes_nothing(ours, off):
    logits = rows("continuous")[:100]
    assert torch.equal(ours(logits, off), logits)


@pytest.mark.parametrize(("ours", "setting"), [(top_k, 5), (top_p, 0.6), (min_p, 0.2), (typical_p, 0.6)])
def test_a_row_is_filtered_as_if_it_were_alone(ours, setting):
    logits = rows("continuous")[:50]
    alone = torch.cat([ours(row[None], setting) for row in logits])
    assert torch.equal(ours(logits, setting), alone)


@pytest.mark.parametrize(("ours", "setting"), [(top_k, 1), (top_p, 0.5), (min_p, 0.5), (typical_p, 0.5)])
def test_a_token_of_infinite_logit_survives_alone(ours, setting):
    logits = torch.zeros(2, 5)
    logits[0, 3] = torch.inf
    logits[1, :4] = -torch.inf
    assert kept(ours(logits, setting)).tolist() == [[False] * 3 + [True, False], [False] * 4 + [True]]
