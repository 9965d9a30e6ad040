"""What a run will do: the numbers that follow from the settings and the data, before anything slow."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt_pretrain.config import ModelConfig, TrainConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.training.schedule import warmup_steps

MOST_TOKENS = 10**18  # whatever is counted then fits into 64 bits


@dataclass(slots=True, frozen=True)
class Budget:
    """The setting that ends a run."""

    setting: str
    value: float

    def __str__(self) -> str:
        return f"{self.setting}={self.value:.15g}"

    def doubled(self) -> "Budget":
        return Budget(self.setting, 2 * self.value)


@dataclass(kw_only=True, slots=True, frozen=True)
class Plan:
    """Counts are optimizer steps unless they say otherwise."""

    world_size: int
    n_windows: int  # of the training split, an epoch
    stride: int
    batch_tokens: int  # tokens of a micro-step, all devices
    accumulate: int  # micro-steps an optimizer step
    steps: int
    steps_per_epoch: float
    budget: Budget  # that set `steps`
    others: tuple[Budget, ...] = ()  # that would end a run of twice the steps before
    eval_every: int
    sample_every: int | None  # None: at every evaluation
    checkpoint_every: int | None
    eval_first: int | None = None  # None: eval_every
    eval_batches: int | None = None  # of a device; None: all

    @property
    def tokens_per_step(self) -> int:
        return self.batch_tokens * self.accumulate

    def measures_as(self, state: Mapping[str, Any]) -> bool:
        """Whether losses of the part of the run that left `state` are of the same text as those to come."""
        return bool(state.get("eval_batches", self.eval_batches) == self.eval_batches)

    def next_evaluation(self, step: int) -> int:
        """The first step of the evaluations' beat that is not before `step`."""
        first = self.eval_first or self.eval_every
        return first + max(0, math.ceil((step - first) / self.eval_every)) * self.eval_every


def make_plan(config: TrainConfig, model: ModelConfig, *, n_windows: int, world_size: int) -> Plan:
    """Derive a run's numbers from its settings and the windows of an epoch.

    Raises InputError where the settings contradict each other or the data.
    """
    trainer, data = config.trainer, config.data
    batch_tokens = world_size * data.batch_size * model.context_length
    accumulate = _accumulate(trainer.global_batch_tokens, batch_tokens)
    steps_per_epoch = n_windows / (world_size * data.batch_size * accumulate)
    if data.order == "book":
        steps_per_epoch = _whole_batches(steps_per_epoch, n_windows, data.batch_size)
    steps, budget, others = _steps(config, batch_tokens * accumulate, steps_per_epoch)
    warmup = warmup_steps(config.schedule, steps)
    if warmup >= steps and warmup > 0:
        raise InputError(
            f"schedule.warmup_steps={warmup} does not fit into a run of {steps} steps ({budget}): "
            "warm up for less or train longer"
        )
    eval_every = min(steps, trainer.eval_every or max(1, math.ceil(steps / 10)))
    return Plan(
        world_size=world_size,
        n_windows=n_windows,
        stride=data.window_stride(model.context_length),
        batch_tokens=batch_tokens,
        accumulate=accumulate,
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        budget=budget,
        others=others,
        eval_every=eval_every,
        sample_every=trainer.sample_every,
        checkpoint_every=trainer.checkpoint_every,
        eval_first=trainer.eval_first,
        eval_batches=trainer.eval_batches,
    )


def _whole_batches(steps_per_epoch: float, n_windows: int, batch_size: int) -> int:
    """The book's loader drops an epoch's incomplete last batch."""
    if steps_per_epoch < 1:
        raise InputError(
            f"data.order=book drops incomplete batches, and there are {n_windows} training windows in all: "
            f"set data.batch_size={n_windows} or less"
        )
    return int(steps_per_epoch)


def _accumulate(global_batch_tokens: int | None, batch_tokens: int) -> int:
    if global_batch_tokens is None:
        return 1
    if global_batch_tokens % batch_tokens:
        nearest = batch_tokens * max(1, round(global_batch_tokens / batch_tokens))
        raise InputError(
            f"trainer.global_batch_tokens={global_batch_tokens} is no multiple of the {batch_tokens} tokens "
            f"that all devices take at once: set {nearest}, or another data.batch_size"
        )
    return global_batch_tokens // batch_tokens


def _steps(
    config: TrainConfig, tokens_per_step: int, steps_per_epoch: float
) -> tuple[int, Budget, tuple[Budget, ...]]:
    """The smallest budget in whole optimizer steps, which it is, and which others are below twice that."""
    trainer = config.trainer
    budgets = []
    if trainer.max_steps is not None:
        budgets.append((trainer.max_steps, Budget("trainer.max_steps", trainer.max_steps)))
    if trainer.max_tokens is not None:
        budgets.append(
            (trainer.max_tokens // tokens_per_step, Budget("trainer.max_tokens", trainer.max_tokens))
        )
    if trainer.max_epochs is not None or not budgets:
        epochs = trainer.max_epochs or config.data.epochs
        steps = int(min(epochs * steps_per_epoch, MOST_TOKENS) + 1e-6)
        setting = "trainer.max_epochs" if trainer.max_epochs else "data.epochs"
        budgets.append((steps, Budget(setting, epochs)))
    (steps, budget), *others = sorted(budgets, key=lambda entry: entry[0])
    if steps < 1:
        raise InputError(
            f"{budget} is less than one optimizer step of {tokens_per_step} tokens "
            f"({steps_per_epoch:.2f} steps an epoch): set a smaller data.batch_size or a larger budget"
        )
    if steps * tokens_per_step > MOST_TOKENS:
        raise InputError(f"{budget} is more than {MOST_TOKENS:.0e} tokens: set a smaller budget")
    return steps, budget, tuple(other for steps_of, other in others if steps_of < 2 * steps)
