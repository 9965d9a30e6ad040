"""Settings of the programs that are modules: `evaluate` and `export`."""

from dataclasses import dataclass

from gpt_pretrain.config.data import DataConfig
from gpt_pretrain.config.fields import number, one_of
from gpt_pretrain.config.model import ModelSettings
from gpt_pretrain.config.weights import WeightsConfig
from gpt_pretrain.errors import InputError


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    model: ModelSettings
    weights: WeightsConfig
    data: DataConfig
    checkpoint: str | None = None  # weights of any format, or a run; None: the newest run's best
    split: str = one_of("both", "train", "val")
    device: str = one_of("auto", "cpu", "cuda")
    debug: bool = False

    def check(self) -> None:
        self.weights.check()
        self.data.check()


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    model: ModelSettings
    weights: WeightsConfig
    checkpoint: str | None = None  # weights of any format, or a run; None: the newest run's best
    format: str = one_of("huggingface", "book", "openai")
    out: str | None = None  # a new folder
    max_shard_mb: int | None = number(None, at_least=1)  # 10^6 bytes a file; None: one file
    debug: bool = False

    def check(self) -> None:
        self.weights.check()
        if not self.out:
            raise InputError("out is not set: name a new folder, as in out=exported")
