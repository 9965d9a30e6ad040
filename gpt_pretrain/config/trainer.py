"""A training run: machine, budget and rhythm, and where it logs."""

from dataclasses import dataclass
from importlib.util import find_spec

from gpt_pretrain.config.fields import number, one_of, switch, switched
from gpt_pretrain.errors import InputError


@dataclass(kw_only=True, slots=True)
class TrainerConfig:
    """Machine, budget and rhythm. The first budget used up ends the run; without any, one epoch does."""

    accelerator: str = one_of("auto", "cpu", "gpu", "mps")  # what computes
    devices: int | None = number(None, "every GPU, or one CPU process", at_least=1)  # per node
    num_nodes: int | None = number(None, "as the launcher says, else one", at_least=1)  # machines
    strategy: str = one_of("auto", "ddp", "fsdp")  # of several devices: copies, or shards; auto: what fits
    activation_checkpointing: bool = False  # compute each block anew in the backward pass: less memory
    start_timeout: float = number(600.0, above=0)  # seconds until every process of the run must be there
    silence_timeout: float = number(60.0, at_least=5)  # seconds without a sign of life: a process is lost
    exchange_timeout: float = number(1800.0, above=0)  # seconds that processes wait for each other's numbers
    precision: str = one_of("auto", "32-true", "bf16-mixed", "bf16-true", "16-mixed")  # of arithmetic
    tf32: bool = False  # products of float32 with 10 bits of mantissa, on a GPU: faster, no longer exact
    fp8: bool = False  # products of the blocks' weights with 8 bits, on a GPU: faster where models are large
    compile: str = switch()  # torch.compile of the blocks and the loss; auto: in long runs on a GPU
    attention: str = one_of("auto", "sdpa", "products")  # in training: torch's function, or matrix products
    dropout_kernel: str = one_of("auto", "torch", "bits")  # bits: other draws than torch's, faster on a CPU
    loss: str = one_of("auto", "torch", "in_place")  # in_place: its gradient is written over the logits
    pad_vocabulary: str = switch()  # to a multiple of 64, inside the loss alone; auto: where faster
    residual: str = one_of("auto", "float32", "bfloat16")  # that blocks add to; auto: bfloat16 on a GPU
    max_epochs: float | None = number(None, "no such limit", above=0)  # passes over the text
    max_steps: int | None = number(None, "no such limit", at_least=1)  # optimizer steps
    max_tokens: int | None = number(None, "no such limit", at_least=1)  # all devices together
    global_batch_tokens: int | None = number(None, "no accumulation", at_least=1)  # tokens a step
    draws: str = one_of("step", "book")  # of dropout: a seed a step; book: one generator that runs on
    grad_clip: float | None = number(1.0, "no clipping", above=0)  # largest gradient norm
    grad_clip_from: int = number(0, at_least=0)  # the first optimizer step (of 0, 1, ...) that is clipped
    # On a loss or gradient that is no number, found before the optimizer moves: end the run, leave the step's
    # batch out, or go back to the newest checkpoint and past the batches since.
    on_divergence: str = one_of("stop", "skip", "rollback")
    divergence_budget: int = number(10, at_least=1)  # times in a run that it may skip or roll back
    spike: float | None = number(
        None, "no such limit", above=1
    )  # a norm that many times its median is one, too
    log_every: int = number(10, at_least=1)  # optimizer steps, like all that follow
    eval_every: int | None = number(None, "ten times a run", at_least=1)  # between evaluations
    eval_first: int | None = number(None, "eval_every", at_least=1)  # 1 and 5: after 1, 6, 11, ...
    eval_batches: int | None = number(None, "all", at_least=1)  # a device, of each evaluated split
    eval_train: bool = False  # measure the training split without dropout too, as the book does
    sample_every: int | None = number(None, "at every evaluation", at_least=1)  # between samples
    sample_prompt: str | None = None  # None: data.prompt, else how the validation text begins
    checkpoint_every: int | None = number(None, "only the best and the last", at_least=1)  # between them
    keep_best: bool = True  # also save whenever the validation loss is among the lowest so far
    best_of: int = number(1, at_least=1)  # how many of the lowest
    keep_last: int = number(2, at_least=2)  # older ones are deleted, the best never; one may turn out damaged
    save_in_background: bool = False  # train on while a copy of the state is written: as much memory again
    save_retries: int = number(3, at_least=0)  # saves that may fail one after another, as on a full disk
    profile: bool = False  # write a trace of five steps and print the operations that took longest

    def __post_init__(self) -> None:
        switched(self)

    def check(self) -> None:
        """Raise InputError for what does not go together."""
        if self.save_in_background and self.on_divergence == "rollback":
            raise InputError(
                "trainer.on_divergence=rollback goes back to what is written, which "
                "trainer.save_in_background=true does not wait for: set one of them otherwise"
            )
        if self.spike is not None and self.precision == "16-mixed":
            raise InputError(
                "trainer.spike compares gradients as they are, which trainer.precision=16-mixed scales: "
                "set trainer.precision=bf16-mixed, or no trainer.spike"
            )


@dataclass(kw_only=True, slots=True)
class LoggerConfig:
    """Where a run's numbers go, and which."""

    csv: bool = True  # metrics.csv
    tensorboard: bool = True  # event files in the run's folder
    wandb: bool = False  # Weights & Biases; needs pip install '.[wandb]'
    mlflow: bool = False  # MLflow; needs pip install '.[mlflow]'
    pictures: bool | None = None  # loss.png, report.html, TensorBoard's pictures; null: of no sweep's trial
    layers: bool = False  # norms of gradients, weights and updates, layer by layer, where a step is logged
    project: str = "gpt_pretrain"  # of Weights & Biases; MLflow's experiment
    offline: bool = False  # Weights & Biases: keep all in the run's folder; `wandb sync` sends it later
    mlflow_uri: str | None = None  # MLflow's server; null: a folder mlruns/ in the run's

    def check(self) -> None:
        """Raise InputError where what is asked for is not installed."""
        for name, package in (("wandb", "wandb"), ("mlflow", "mlflow-skinny")):
            if getattr(self, name) and find_spec(name) is None:
                raise InputError(
                    f"logger.{name}=true needs {package}, which is not installed: pip install '.[{name}]'"
                )
