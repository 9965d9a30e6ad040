"""Where the first weights come from."""

from dataclasses import dataclass

from gpt_pretrain.config.fields import one_of


@dataclass(kw_only=True, slots=True)
class WeightsConfig:
    """Where the first weights come from."""

    source: str = one_of("scratch", "checkpoint")
    path: str | None = None  # checkpoint: its folder, or a run's folder
