"""Beam search: follow the best partial texts together and return the best ended ones.

Token for token what transformers 5 does: a beam's score is its summed log-probability, an ended one's is
divided by its length to the power of `length_penalty`; the penalties act on log-probabilities, not on logits.
With a temperature above 0, the next beams are drawn without replacement instead of being the best.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.choose import divisor, exhausted
from gpt_pretrain.decoding.continuation import Continuation, Limits, Rule, apply
from gpt_pretrain.decoding.filters import filtered
from gpt_pretrain.decoding.sequences import Sequences
from gpt_pretrain.model import GPTModel


@dataclass(kw_only=True, slots=True)
class Ended:
    """A beam that has come to its end."""

    score: float
    continuation: Continuation


@torch.inference_mode()
def beam_search(
    model: GPTModel, prompt: Sequence[int], config: DecodingConfig, limits: Limits, rules: Sequence[Rule]
) -> list[Continuation]:
    """The best `num_return_sequences` continuations of one prompt, best first."""
    n_beams = config.num_beams
    sequences = Sequences(model, [prompt], room=config.max_new_tokens, slide=config.slide)
    generator = torch.Generator().manual_seed(config.seed)
    logits = sequences.logits()
    scores = torch.zeros(1)  # one beam: more would be copies, and come back as such where filters leave few
    logprobs: list[list[float]] = [[]]
    ended: list[Ended] = []
    for n_new in range(1, config.max_new_tokens + 1):
        own = logits.log_softmax(-1).cpu()  # (n, V) of n beams; on the CPU, where the generator draws
        n_prompt = [len(prompt)] * len(scores)
        shaped = apply(own, sequences.tokens, n_prompt, config, limits.end_of_text_id, rules)
        if all(exhausted(shaped)):
            # The beams have the tokens of the steps before; where those are none, 0 ** -1 would be no number.
            lengthened = max(1, n_new - 1) ** config.length_penalty
            ended += _cut_off(sequences.tokens, logprobs, (scores / lengthened).tolist(), prompt)
            break
        candidates = (shaped if config.temperature == 0 else _tempered(shaped, config)) + scores[:, None]
        # (n, V). Twice as many as beams, as in transformers: each may end in its end of text, and n go on.
        chosen = _candidates(candidates.flatten(), 2 * n_beams, config, generator)
        going_on: list[tuple[float, int, int]] = []  # score, beam, token
        new_ended: list[Ended] = []
        for rank, at in enumerate(chosen.tolist()):
            beam, token = divmod(at, shaped.shape[-1])  # a place in n * V
            score = float(candidates[beam, token])
            if score == -math.inf:  # ruled out, and taken for want of others
                continue
            new = [*sequences.tokens[beam][len(prompt) :], token]
            row = Continuation(prompt_token_ids=list(prompt), token_ids=new)
            row.finish_reason = limits.reason(row.token_ids)
            if row.finish_reason is None:
                going_on.append((score, beam, token))
            # One that ends further down is dropped, as in transformers: n better ones stand above it.
            elif rank < n_beams:
                row.logprobs = [*logprobs[beam], float(own[beam, token])]
                # by the length of the new tokens, the ending one included
                new_ended.append(Ended(score=score / n_new**config.length_penalty, continuation=row))
        ended = _best(ended + new_ended)[:n_beams]  # the worst comes last: see _is_settled
        going_on = sorted(going_on, key=lambda entry: -entry[0])[:n_beams]  # drawn ones come as drawn
        if not going_on or _is_settled(going_on[0][0], ended, n_new, config):
            break
        scores = torch.tensor([score for score, _, _ in going_on])
        logprobs = [[*logprobs[beam], float(own[beam, token])] for _, beam, token in going_on]
        sequences.select([beam for _, beam, _ in going_on])
        sequences.append([token for _, _, token in going_on])
        logits = sequences.logits()
    return [end.continuation for end in _best(ended)[: config.num_return_sequences]]


def _best(ended: list[Ended]) -> list[Ended]:
    return sorted(ended, key=lambda end: -end.score)


def _tempered(log_probabilities: Tensor, config: DecodingConfig) -> Tensor:
    return filtered(log_probabilities, config) / divisor(config.temperature)


def _candidates(scores: Tensor, n: int, config: DecodingConfig, generator: torch.Generator) -> Tensor:
    """Which of all (beam, token) pairs go on, at most n: the best, or drawn ones."""
    n = min(n, len(scores))
    if config.temperature > 0:
        # Gumbel noise makes the best ones a draw without replacement (Kool et al. 2019)
        scores = scores - torch.empty_like(scores).exponential_(generator=generator).log()
    return scores.topk(n).indices


def _cut_off(
    tokens: list[list[int]], logprobs: list[list[float]], scores: list[float], prompt: Sequence[int]
) -> list[Ended]:
    """Beams that can go on with no token."""
    return [
        Ended(
            score=score,
            continuation=Continuation(
                prompt_token_ids=list(prompt),
                token_ids=row[len(prompt) :],
                logprobs=own,
                finish_reason="ruled_out",
            ),
        )
        for row, own, score in zip(tokens, logprobs, scores, strict=True)
    ]


def _is_settled(best_running: float, ended: list[Ended], n_new: int, config: DecodingConfig) -> bool:
    """Whether the search is over: nothing that still runs can become better than what has ended."""
    if len(ended) < config.num_beams:
        return False
    if config.early_stopping not in (False, "never"):
        return True
    # Scores are below 0. With a positive penalty the longest text divides them by most, so "never" judges by
    # what is still possible; False judges by the length of now, which a longer text can better.
    longest = config.early_stopping == "never" and config.length_penalty > 0
    length = config.max_new_tokens if longest else n_new
    return best_running / length**config.length_penalty <= ended[-1].score
