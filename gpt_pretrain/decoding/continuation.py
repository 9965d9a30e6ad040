"""A continuation while it grows: what ends it, and what its next token is chosen from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.penalties import penalised

Stop = Callable[[list[int]], bool]  # of a row's new tokens: does its text end here?
Rule = Callable[[Tensor, list[list[int]], list[int]], Tensor]  # of logits (B, V), histories, prompt lengths


@dataclass(kw_only=True, slots=True)
class Continuation:
    """What the model wrote after a prompt."""

    prompt_token_ids: list[int]
    token_ids: list[int] = field(default_factory=list)  # new ones; an end of text is one of them
    logprobs: list[float] = field(default_factory=list)  # the model's own, of each new token
    # end_of_text, stop (a stop text), length, ruled_out (no token was left to choose); None: not ended yet
    finish_reason: str | None = None

    def add(self, token: int, logprob: float, limits: "Limits") -> None:
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        self.finish_reason = limits.reason(self.token_ids)


@dataclass(kw_only=True, slots=True)
class Limits:
    """What ends a continuation."""

    max_new_tokens: int
    end_of_text_id: int | None = None
    stop: Stop | None = None

    def reason(self, new: list[int]) -> str | None:
        """Why a continuation that consists of `new` ends with its last token; None: it goes on."""
        if new[-1] == self.end_of_text_id:
            return "end_of_text"
        if self.stop is not None and self.stop(new):
            return "stop"
        return "length" if len(new) >= self.max_new_tokens else None


def apply(
    logits: Tensor,
    history: list[list[int]],
    n_prompt: list[int],
    config: DecodingConfig,
    end_of_text_id: int | None,
    rules: Sequence[Rule],
) -> Tensor:
    """Logits (B, V) after the rules and the penalties: what the choice is made from."""
    for rule in rules:
        logits = rule(logits, history, n_prompt)
    return penalised(logits, history, n_prompt, config, end_of_text_id)
