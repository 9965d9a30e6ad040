"""A training run: machine, budget and rhythm, and the root of all its settings."""

from dataclasses import dataclass

from gpt_pretrain.config.data import DataConfig, TokenizerConfig
from gpt_pretrain.config.decoding import DecodingConfig
from gpt_pretrain.config.fields import number, one_of
from gpt_pretrain.config.model import ModelSettings
from gpt_pretrain.config.optimizer import OptimizerConfig, ScheduleConfig
from gpt_pretrain.config.weights import WeightsConfig
from gpt_pretrain.errors import InputError


@dataclass(kw_only=True, slots=True)
class TrainerConfig:
    """Machine, budget and rhythm. Of several budgets the first to be used up ends the run; of none, one epoch
    does.
    """

    accelerator: str = one_of("auto", "cpu", "gpu")
    devices: int | None = number(None, at_least=1)  # per node; None: every GPU, or one CPU process
    num_nodes: int = number(1, at_least=1)
    precision: str = one_of("auto", "32-true", "bf16-mixed", "bf16-true", "16-mixed")
    compile: bool = False  # torch.compile, block by block
    max_epochs: float | None = number(None, above=0)
    max_steps: int | None = number(None, at_least=1)  # optimizer steps
    max_tokens: int | None = number(None, at_least=1)  # all devices together
    global_batch_tokens: int | None = number(None, at_least=1)  # tokens a step; None: no accumulation
    grad_clip: float | None = number(1.0, above=0)  # largest gradient norm
    log_every: int = number(10, at_least=1)  # optimizer steps, like all that follow
    eval_every: int | None = number(None, at_least=1)  # None: ten times a run
    eval_batches: int | None = number(None, at_least=1)  # a device, of each evaluated split; None: all of it
    eval_train: bool = False  # measure the training split without dropout too, as the book does
    sample_every: int | None = number(None, at_least=1)  # None: at every evaluation
    sample_prompt: str = "Every effort moves you"
    checkpoint_every: int | None = number(None, at_least=1)  # None: only the best and the last
    keep_best: bool = True  # also save whenever the validation loss is the lowest so far
    keep_last: int = number(2, at_least=1)  # older ones are deleted, the best one never


@dataclass(kw_only=True, slots=True)
class LoggerConfig:
    csv: bool = True
    tensorboard: bool = True


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    model: ModelSettings
    weights: WeightsConfig
    data: DataConfig
    tokenizer: TokenizerConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    decoding: DecodingConfig  # of the samples drawn while training
    trainer: TrainerConfig
    logger: LoggerConfig
    seed: int = number(123, at_least=0, below=2**63)
    resume: str | None = None  # auto: the newest run; or a run's folder
    debug: bool = False  # tracebacks instead of messages

    def check(self) -> None:
        self.weights.check()
        self.decoding.check()
        if self.weights.name == "checkpoint" and self.weights.path is None:
            raise InputError(
                "weights.path is not set: give a file or folder of weights, a checkpoint or a run"
            )
        self.data.check()
        self.tokenizer.check()
        for name in ("initial_lr", "min_lr"):
            value = getattr(self.schedule, name)
            if value is not None and value > self.optimizer.lr:
                raise InputError(
                    f"schedule.{name}={value:g} exceeds the peak optimizer.lr={self.optimizer.lr:g}: "
                    "lower the one or raise the other"
                )
        if not self.trainer.sample_prompt:
            raise InputError("trainer.sample_prompt is empty: give the text that samples begin with")
