"""How text is generated, and the settings of generate.py."""

from dataclasses import dataclass, field
from typing import Any

from gpt_pretrain.config.fields import number
from gpt_pretrain.errors import InputError


@dataclass(kw_only=True, slots=True)
class DecodingConfig:
    """How the next token is chosen: penalties and filters on the logits, then temperature, then the draw.

    Any stands where omegaconf has no type: it cannot merge `bool | str` or `str | list[str]`.
    """

    max_new_tokens: int = number(50, at_least=1)  # where nothing ends it before
    min_new_tokens: int = number(0, at_least=0)  # no end of text before these
    stop: Any = field(default_factory=list)  # a text or several: the new text ends before the first of them
    temperature: float = number(1.0, at_least=0)  # 0: the most likely token
    top_k: int | None = number(None, at_least=1)  # exactly k tokens stay
    top_p: float | None = number(None, above=0, at_most=1)  # the fewest that hold it together stay
    min_p: float | None = number(None, at_least=0, at_most=1)  # of the most likely token's probability
    typical_p: float | None = number(None, above=0, at_most=1)  # as top_p, by typicality
    # of tokens in the prompt and in the new text
    repetition_penalty: float = number(1.0, at_least=1e-6, at_most=1e6)
    presence_penalty: float = number(0.0, at_least=-100, at_most=100)  # off a token that the new text has
    frequency_penalty: float = number(0.0, at_least=-100, at_most=100)  # for each time that it is there
    no_repeat_ngram_size: int = number(0, at_least=0)  # tokens; 0: off
    logit_bias: Any = None  # what a text's last token's logit gains: {text: number}, or ["text=number", ...]
    banned_words: Any = field(default_factory=list)  # never in the new text, nor inside a word of it
    num_beams: int = number(
        1, at_least=1, at_most=1000
    )  # above 1 and temperature 0: beam search; else beams are drawn
    # A beam's score is its log-probability / its length ** length_penalty.
    length_penalty: float = number(1.0, at_least=-10, at_most=10)
    early_stopping: Any = field(default=False, metadata={"one_of": (False, True, "never")})  # of beam search
    num_return_sequences: int = number(1, at_least=1, at_most=10_000)  # continuations of each prompt
    penalty_alpha: float | None = number(None, at_least=0, at_most=1)  # contrastive search among top_k tokens
    slide: int = number(1, at_least=1)  # tokens the window moves by when the context is full
    seed: int = number(0, at_least=0, at_most=2**63 - 1)  # of the draws

    def __post_init__(self) -> None:
        self.stop, self.banned_words = _texts(self.stop), _texts(self.banned_words)
        self.logit_bias = _biases(self.logit_bias)

    def check(self) -> None:
        """Raise InputError for settings that exclude each other."""
        if self.min_new_tokens > self.max_new_tokens:
            raise InputError(
                f"decoding.min_new_tokens={self.min_new_tokens} exceeds "
                f"decoding.max_new_tokens={self.max_new_tokens}: lower the one or raise the other"
            )
        for name in ("stop", "banned_words", "logit_bias"):
            if "" in getattr(self, name):
                raise InputError(f"decoding.{name} holds an empty text: leave it out")
            if any("\ud800" <= character <= "\udfff" for character in "".join(getattr(self, name))):
                raise InputError(f"decoding.{name} holds bytes that are no UTF-8 text: no token could match")
        for text, bias in self.logit_bias.items():
            if not bias <= 1e6:  # above it, and with nan, sums of logits are no numbers
                raise InputError(f"decoding.logit_bias={{{text!r}: {bias}}} is out of range: at most 1e6")
        if self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            raise InputError(
                f"decoding.num_return_sequences={self.num_return_sequences} exceeds "
                f"decoding.num_beams={self.num_beams}: a search returns no more texts than it has beams"
            )
        if self.penalty_alpha:
            self._check_contrastive()
        elif self.num_beams == 1 and self.temperature == 0 and self.num_return_sequences > 1:
            raise InputError(
                f"decoding.num_return_sequences={self.num_return_sequences}: temperature 0 finds the same "
                "text each time; raise decoding.temperature or set decoding.num_beams"
            )

    def _check_contrastive(self) -> None:
        if not self.top_k:
            raise InputError(
                f"decoding.penalty_alpha={self.penalty_alpha} needs decoding.top_k, the number of "
                "candidates, as in decoding=contrastive"
            )
        if self.num_beams > 1 or self.num_return_sequences > 1:
            raise InputError(
                f"decoding.penalty_alpha={self.penalty_alpha} follows one text: "
                "set decoding.num_beams=1 and decoding.num_return_sequences=1"
            )


def _texts(given: Any) -> list[str]:
    """One text or several, as a list; YAML reads some texts as numbers."""
    several = given if isinstance(given, list | tuple) else [] if given is None else [given]
    if any(isinstance(text, list | tuple | dict) for text in several):
        raise InputError(f"{given} is neither a text nor a list of texts")
    return [str(text) for text in several]


def _biases(given: Any) -> dict[str, float]:
    """As {text: number}; ["text=number"] is what a command line can say, whose keys cannot be quoted."""
    pairs = (
        given.items() if isinstance(given, dict) else [text.rpartition("=")[::2] for text in _texts(given)]
    )
    try:
        return {str(text): float(bias) for text, bias in pairs}
    except (TypeError, ValueError) as error:
        raise InputError(
            f"decoding.logit_bias={given}: each entry is a text and a number, as in "
            """decoding.logit_bias='[" the=-2.5"]'"""
        ) from error
