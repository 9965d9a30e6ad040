"""How text is generated."""

from dataclasses import dataclass

from gpt_pretrain.config.fields import number, one_of
from gpt_pretrain.config.model import ModelSettings
from gpt_pretrain.config.weights import WeightsConfig
from gpt_pretrain.errors import InputError


@dataclass(kw_only=True, slots=True)
class DecodingConfig:
    """How the next token is chosen: filters on the logits, then temperature, then the draw."""

    max_new_tokens: int = number(50, at_least=1)
    temperature: float = number(1.0, at_least=0)  # 0: the most likely token
    top_k: int | None = number(None, at_least=1)
    top_p: float | None = number(None, above=0, at_most=1)
    seed: int = number(0, at_least=0)


@dataclass(kw_only=True, slots=True)
class GenerateConfig:
    model: ModelSettings
    weights: WeightsConfig
    decoding: DecodingConfig
    prompt: str = "Every effort moves you"
    checkpoint: str | None = None  # weights of any format, or a run; None: the newest run's best
    num_samples: int = number(1, at_least=1)
    device: str = one_of("auto", "cpu", "cuda")
    debug: bool = False

    def check(self) -> None:
        self.weights.check()
        if not self.prompt:
            raise InputError(
                "prompt is empty: give at least one character, as in prompt='Every effort moves you'"
            )
