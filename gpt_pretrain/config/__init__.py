"""Every setting: its type, default, unit and range. What YAML under `conf/` does not say, stands here.

A root (`TrainConfig`, `GenerateConfig`) has one section a config group. `to_config` turns what Hydra composed
into these classes and refuses what does not fit; below that border no other kind of settings object exists.
"""

from gpt_pretrain.config.batch import SlurmConfig
from gpt_pretrain.config.border import MEMBERS, known_keys, say_what_is_wrong, sections, to_config, to_plain
from gpt_pretrain.config.data import DataConfig, TokenizerConfig
from gpt_pretrain.config.decoding import DecodingConfig
from gpt_pretrain.config.fields import nearest
from gpt_pretrain.config.model import ModelConfig, ModelSettings, resolve_model
from gpt_pretrain.config.optimizer import (
    AdamConfig,
    AdamWConfig,
    MuonConfig,
    OptimizerConfig,
    SGDConfig,
)
from gpt_pretrain.config.programs import (
    BenchmarkDataConfig,
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    InspectConfig,
    PlaygroundConfig,
    PlotConfig,
    PrepareConfig,
    TrainConfig,
)
from gpt_pretrain.config.schedule import (
    ConstantConfig,
    CosineConfig,
    LinearConfig,
    RisingConfig,
    ScheduleConfig,
    WSDConfig,
)
from gpt_pretrain.config.sweep import SweepConfig
from gpt_pretrain.config.trainer import LoggerConfig, TrainerConfig
from gpt_pretrain.config.weights import WeightsConfig

__all__ = [
    "MEMBERS",
    "AdamConfig",
    "AdamWConfig",
    "BenchmarkDataConfig",
    "ConstantConfig",
    "CosineConfig",
    "DataConfig",
    "DecodingConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GenerateConfig",
    "InspectConfig",
    "LinearConfig",
    "LoggerConfig",
    "ModelConfig",
    "ModelSettings",
    "MuonConfig",
    "OptimizerConfig",
    "PlaygroundConfig",
    "PlotConfig",
    "PrepareConfig",
    "RisingConfig",
    "SGDConfig",
    "ScheduleConfig",
    "SlurmConfig",
    "SweepConfig",
    "TokenizerConfig",
    "TrainConfig",
    "TrainerConfig",
    "WSDConfig",
    "WeightsConfig",
    "known_keys",
    "nearest",
    "resolve_model",
    "say_what_is_wrong",
    "sections",
    "to_config",
    "to_plain",
]
