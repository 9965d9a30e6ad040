"""The generation loop. It knows token ids only: stop texts and banned words come as functions of them."""

from collections.abc import Iterator, Sequence

import torch

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.beam import beam_search
from gpt_pretrain.decoding.choose import choose, exhausted
from gpt_pretrain.decoding.continuation import Continuation, Limits, Rule, Stop, apply
from gpt_pretrain.decoding.contrastive import contrastive_search
from gpt_pretrain.decoding.sequences import Sequences
from gpt_pretrain.loss import log_probabilities
from gpt_pretrain.model import GPTModel


@torch.inference_mode()
def steps(
    model: GPTModel,
    prompts: Sequence[Sequence[int]],
    config: DecodingConfig,
    *,
    end_of_text_id: int | None = None,
    stop: Stop | None = None,
    rules: Sequence[Rule] = (),
    seeds: Sequence[int] | None = None,
) -> Iterator[list[Continuation]]:
    """After each token, all continuations of `prompts`: the same objects every time, grown.

    One continuation a prompt, greedy or drawn. Row i draws with `seeds[i]`, by default `config.seed` for all,
    so it is what it would be alone, whatever its neighbours are and when they end.
    """
    limits = Limits(max_new_tokens=config.max_new_tokens, end_of_text_id=end_of_text_id, stop=stop)
    rows = [Continuation(prompt_token_ids=list(prompt)) for prompt in prompts]
    # On the CPU, whatever the model's device.
    generators = [torch.Generator().manual_seed(seed) for seed in seeds or [config.seed] * len(rows)]
    sequences = Sequences(model, prompts, room=config.max_new_tokens, slide=config.slide)
    active = list(range(len(rows)))
    while active:
        logits = sequences.logits()
        n_prompt = [len(rows[row].prompt_token_ids) for row in active]
        shaped = apply(logits, sequences.tokens, n_prompt, config, end_of_text_id, rules)
        nothing_left = exhausted(shaped)
        if any(nothing_left):
            unused = torch.tensor(nothing_left, device=logits.device)[:, None]  # drawn all the same
            shaped = torch.where(unused, logits, shaped)
        for row, ends in zip(active, nothing_left, strict=True):
            rows[row].finish_reason = "ruled_out" if ends else None
        chosen = choose(shaped, config, [generators[row] for row in active])
        # the model's own: no penalty, filter or temperature
        logprobs = log_probabilities(logits, chosen).tolist()
        sequences.append(chosen.tolist())
        for row, token, logprob in zip(active, chosen.tolist(), logprobs, strict=True):
            if rows[row].finish_reason is None:
                rows[row].add(token, logprob, limits)
        yield rows
        going_on = [at for at, row in enumerate(active) if rows[row].finish_reason is None]
        if len(going_on) < len(active):
            active = [active[at] for at in going_on]
            sequences.select(going_on)  # rows that ended cost nothing more


def continue_tokens(
    model: GPTModel,
    prompts: Sequence[Sequence[int]],
    config: DecodingConfig,
    *,
    end_of_text_id: int | None = None,
    stop: Stop | None = None,
    rules: Sequence[Rule] = (),
) -> list[list[Continuation]]:
    """Of each prompt `num_return_sequences` continuations, by whatever strategy `config` describes.

    The j-th one of each prompt is drawn with seed `config.seed` + j. A search's come best first, and are
    fewer where penalties and filters leave too little to search. Raises InputError for a prompt without a
    token, ArtifactError where the model's logits are no numbers.
    """
    limits = Limits(max_new_tokens=config.max_new_tokens, end_of_text_id=end_of_text_id, stop=stop)
    if config.penalty_alpha:
        return [[contrastive_search(model, prompt, config, limits, rules)] for prompt in prompts]
    if config.num_beams > 1:
        return [beam_search(model, prompt, config, limits, rules) for prompt in prompts]
    if len(prompts) == 0:  # no step would be taken, and none be the last
        return []
    n_each = config.num_return_sequences
    *_, rows = steps(
        model,
        [prompt for prompt in prompts for _ in range(n_each)],
        config,
        end_of_text_id=end_of_text_id,
        stop=stop,
        rules=rules,
        # The same for every prompt: its texts do not depend on its place among the others.
        seeds=[config.seed + draw for _ in prompts for draw in range(n_each)],
    )
    return [rows[start : start + n_each] for start in range(0, len(rows), n_each)]
