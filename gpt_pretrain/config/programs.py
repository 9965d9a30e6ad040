"""The root of every program's settings: one section a config group, then single values."""

from dataclasses import dataclass, field
from os.path import realpath
from typing import Any

from gpt_pretrain.config.data import DataConfig, TokenizerConfig
from gpt_pretrain.config.decoding import DecodingConfig
from gpt_pretrain.config.fields import check_unicode, number, one_of, path_to
from gpt_pretrain.config.model import ModelSettings
from gpt_pretrain.config.optimizer import OptimizerConfig
from gpt_pretrain.config.schedule import ScheduleConfig
from gpt_pretrain.config.sweep import SweepConfig
from gpt_pretrain.config.trainer import LoggerConfig, TrainerConfig
from gpt_pretrain.config.weights import WeightsConfig
from gpt_pretrain.errors import InputError


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
    sweep: SweepConfig = field(default_factory=SweepConfig)
    seed: int = number(123, at_least=0, below=2**63)  # of the initial weights, the order and dropout
    resume: str | None = path_to()  # auto: the newest run; or a run's folder
    plan: bool = False  # only print what the run needs and takes
    plan_device: str | None = None  # plan.device=h100 and the like: for one that need not be here
    plan_devices: int | None = number(None, "trainer.devices", at_least=1)  # plan.devices=64: how many of it
    plan_tokens_per_sec: float | None = number(None, "a share of the peak", above=0)  # one device's, measured
    debug: bool = False  # tracebacks instead of messages

    def check(self) -> None:
        check_unicode(self)
        self.weights.check()
        self.decoding.check()
        if self.weights.name == "checkpoint" and self.weights.path is None:
            raise InputError("weights.path is not set: give a file or folder of weights, or a run")
        self.data.check()
        self.tokenizer.check()
        self.sweep.check()
        self.trainer.check()
        self.logger.check()
        for name in ("initial_lr", "min_lr"):
            value = getattr(self.schedule, name)
            if value is not None and value > self.optimizer.lr:
                raise InputError(
                    f"schedule.{name}={value:g} exceeds the peak optimizer.lr={self.optimizer.lr:g}: "
                    "lower the one or raise the other"
                )
        if self.data.order == "book" and self.trainer.draws != "book":
            raise InputError(
                f"data.order=book needs the book's draws, and trainer.draws={self.trainer.draws}: "
                "set trainer.draws=book, or data.order=seed"
            )
        if self.trainer.dropout_kernel == "bits" and self.trainer.draws == "book":
            raise InputError(
                "trainer.dropout_kernel=bits draws other numbers than the book's trainer.draws=book: "
                "set trainer.dropout_kernel=auto, or trainer.draws=step"
            )
        if self.trainer.sample_prompt == "":
            raise InputError("trainer.sample_prompt is empty: give the text that samples begin with")


@dataclass(kw_only=True, slots=True)
class GenerateConfig:
    model: ModelSettings
    weights: WeightsConfig
    decoding: DecodingConfig
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)  # where none lies beside the weights
    prompt: str | None = None  # None: how the run's own samples began
    prompts_file: str | None = path_to()  # one prompt a line; *.jsonl, *.ndjson: objects with a prompt
    output: str | None = path_to(written=True)  # a *.jsonl file for the results, instead of the terminal
    interactive: bool = False  # read prompts from the terminal; /help lists what else it takes
    echo: bool = True  # print the prompt before its continuation
    num_samples: int = number(1, at_least=1)  # continuations of each prompt, with consecutive seeds
    next_tokens: int | None = number(None, at_least=1)  # only a table of the most likely next tokens
    # only a picture of how temperature shapes their probabilities, *.png
    plot: str | None = path_to(written=True)
    score: str | None = None  # only the log-probability and perplexity of this text
    checkpoint: str | None = path_to()  # weights of any format, or a run; None: the newest run's best
    dtype: str = one_of("float32", "bfloat16", "int8")  # of the weights
    # by what a token goes through a model on a CPU: c is compiled here; auto: where it is worth the time
    kernel: str = one_of("auto", "torch", "c")
    batch_size: int = number(16, at_least=1)  # prompts at a time
    device: str = one_of("auto", "cpu", "cuda", "mps")  # what computes
    debug: bool = False  # tracebacks instead of messages

    def check(self) -> None:
        self.weights.check()
        self.tokenizer.check()
        self.decoding.check()
        _refuse_empty(self, "prompt", "prompts_file", "output", "plot", "score")
        if self.interactive and (self.prompts_file or self.output):
            raise InputError(
                "interactive=true takes prompts from the terminal: leave out prompts_file and output"
            )
        _refuse_beside(self, "prompt", "prompts_file", "interactive", "score")
        inspects = self.score is not None or self.next_tokens or self.plot
        if inspects and (self.interactive or self.prompts_file or self.output):
            raise InputError(
                "score, next_tokens and plot answer on the terminal and continue nothing: "
                "leave out prompts_file, output and interactive"
            )
        _refuse_beside(self, "score", "next_tokens", "plot")
        if self.interactive:
            _refuse_several(self.decoding)
        self._check_samples()
        if self.plot and (self.next_tokens or 0) > 500:
            raise InputError(
                f"next_tokens={self.next_tokens} bars fit into no picture: at most 500 with plot"
            )
        if self.output and self.prompts_file and realpath(self.output) == realpath(self.prompts_file):
            raise InputError(f"output={self.output} would overwrite prompts_file: give it another name")

    def _check_samples(self) -> None:
        """Raise InputError for several samples where one is written, or where all would be the same."""
        if self.num_samples > 1:
            _refuse_beside(self, "num_samples", "interactive", "score", "next_tokens", "plot")
        if self.num_samples > 1 and (self.decoding.temperature == 0 or self.decoding.penalty_alpha):
            raise InputError(
                f"num_samples={self.num_samples}: temperature 0 and contrastive search find the same text "
                "each time; leave it out, or draw, as with decoding=temperature"
            )


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    model: ModelSettings
    weights: WeightsConfig
    data: DataConfig
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)  # where none lies beside the weights
    checkpoint: str | None = path_to()  # weights of any format, or a run; None: the newest run's best
    split: str = one_of("both", "train", "val")  # of the text, what is measured
    choices: str | None = path_to()  # instead of a text: a .jsonl of multiple choice, as HellaSwag's
    # instead of a text: a .jsonl of texts whose last word is asked, as LAMBADA's
    cloze: str | None = path_to()
    max_questions: int | None = number(None, "all of them", at_least=1)  # of choices or cloze
    device: str = one_of("auto", "cpu", "cuda", "mps")  # what computes
    debug: bool = False  # tracebacks instead of messages

    def check(self) -> None:
        self.weights.check()
        self.tokenizer.check()
        _refuse_empty(self, "choices", "cloze")
        if self.choices and self.cloze:
            raise InputError("choices and cloze are measured one at a time: leave one of them out")
        if self.max_questions is not None and not (self.choices or self.cloze):
            raise InputError("max_questions is of choices or cloze: give one of them, or leave it out")
        if self.split != "both":
            _refuse_beside(self, "split", "choices", "cloze")
        self.data.check()


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    model: ModelSettings
    weights: WeightsConfig
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)  # where none lies beside the weights
    checkpoint: str | None = path_to()  # weights of any format, or a run; None: the newest run's best
    format: str = one_of("huggingface", "book", "openai")  # of the folder; openai: TensorFlow
    out: str | None = path_to(written=True)  # a new folder
    max_shard_mb: int | None = number(None, at_least=1)  # 10^6 bytes a file; None: one file
    debug: bool = False  # tracebacks instead of messages

    def check(self) -> None:
        self.weights.check()
        self.tokenizer.check()
        if not self.out:
            raise InputError("out is not set: name a new folder, as in out=exported")


@dataclass(kw_only=True, slots=True)
class PlotConfig:
    runs: Any = "outputs"  # a run's folder, one that holds runs, a glob, or a list of these
    out: str = path_to(written=True, default="plots")  # a folder for the pictures
    format: str = one_of("both", "png", "svg")  # of each picture
    debug: bool = False  # tracebacks instead of messages

    def paths(self) -> list[str]:
        return [self.runs] if isinstance(self.runs, str) else list(self.runs)

    def check(self) -> None:
        many = self.runs if isinstance(self.runs, list) else [self.runs]
        if not many or not all(isinstance(path, str) and path for path in many):
            raise InputError(f"runs={self.runs}: give folders, as in runs=outputs or runs=[outputs,multirun]")
        _refuse_empty(self, "out")


@dataclass(kw_only=True, slots=True)
class PlaygroundConfig:
    model: ModelSettings
    weights: WeightsConfig
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)  # where none lies beside the weights
    decoding: DecodingConfig  # where the sliders stand at first
    checkpoint: str | None = path_to()  # weights of any format, or a run; None: the newest run's best
    compare: str | None = path_to()  # another one, beside it, with its own shape and tokenizer
    port: int = number(7860, at_least=1, at_most=65535)  # of this machine alone, 127.0.0.1
    device: str = one_of("auto", "cpu", "cuda", "mps")  # what computes
    debug: bool = False  # tracebacks instead of messages

    def check(self) -> None:
        self.weights.check()
        self.tokenizer.check()
        self.decoding.check()
        _refuse_empty(self, "compare")
        _refuse_several(self.decoding)


@dataclass(kw_only=True, slots=True)
class PrepareConfig:
    data: DataConfig
    tokenizer: TokenizerConfig
    debug: bool = False  # tracebacks instead of messages

    def check(self) -> None:
        self.data.check()
        self.tokenizer.check()


@dataclass(kw_only=True, slots=True)
class InspectConfig:
    model: ModelSettings  # its context length says how long a window is
    data: DataConfig
    tokenizer: TokenizerConfig
    windows: int = number(3, at_least=0)  # how many are shown
    world_size: int = number(1, at_least=1)  # devices that a step's batch is spread over
    seed: int = number(123, at_least=0)  # of the initial weights, the order of the text and dropout
    debug: bool = False  # tracebacks instead of messages

    def check(self) -> None:
        self.data.check()
        self.tokenizer.check()
        if self.model.context_length is None:
            raise InputError("model.context_length is not set: choose a size, as in model=mini, or set it")


@dataclass(kw_only=True, slots=True)
class BenchmarkDataConfig:
    model: ModelSettings  # whose training speed the loader is compared with
    size_mib: int = number(64, at_least=1)  # text to tokenize; the text is made up and deleted afterwards
    workers: int | None = number(None, at_least=1)  # None: one a core
    # where the text and the tokens are written; None: a temporary one
    folder: str | None = path_to(written=True)
    debug: bool = False  # tracebacks instead of messages

    def check(self) -> None:
        pass


def _refuse_empty(config: object, *names: str) -> None:
    """Raise InputError for a text or path that is given, and empty: it would count as none."""
    for name in names:
        if getattr(config, name) == "":
            raise InputError(f"{name} is empty: give it a value, or leave it out")


def _refuse_beside(config: object, name: str, *others: str) -> None:
    """Raise InputError where a setting, if it is given, would have no effect beside one of the others."""
    given = [key for key in others if getattr(config, key) not in (None, False)]
    if given and getattr(config, name) is not None:
        raise InputError(f"{name} has no effect beside {given[0]}: leave one of them out")


def _refuse_several(decoding: DecodingConfig) -> None:
    """Raise InputError for several continuations where one text is written at a time."""
    if (n := decoding.num_return_sequences) > 1:
        raise InputError(f"decoding.num_return_sequences={n}: one text is written at a time: leave it out")
