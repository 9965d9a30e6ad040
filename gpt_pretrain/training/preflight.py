"""What can be known or go wrong before training: text, shape, plan, where to resume. No lightning."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_pretrain.config import DecodingConfig, ModelConfig, TrainConfig
from gpt_pretrain.config.words import typed
from gpt_pretrain.data.corpus import (
    Corpus,
    check_same,
    check_windows,
    epoch_windows,
    load_corpus,
)
from gpt_pretrain.data.learned import tokenizer_for
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.launch.job import restarted
from gpt_pretrain.launch.process import rank
from gpt_pretrain.runs.folders import has_saved, newest_valid, restore
from gpt_pretrain.runs.record import differences, read_record
from gpt_pretrain.terminal.watching import forget
from gpt_pretrain.tokenizer import Tokenizer
from gpt_pretrain.training.machine import Machine, find_machine, planned_machine
from gpt_pretrain.training.memory import check_memory, with_strategy
from gpt_pretrain.training.plan import Plan, make_plan

if TYPE_CHECKING:
    from gpt_pretrain.training.ways import Ways
    from gpt_pretrain.weights.read import Weights

log = logging.getLogger(__name__)

# What the parameters' shapes follow from; dropout may change when a run goes on.
SHAPE = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers", "qkv_bias", "tie_weights")
# What the batches already due follow from, beside the text and the tokenizer, which are compared by content.
# The plan's share of it (stride, windows, tokens of a step) is compared as it comes out.
DECIDE_BATCHES = {
    *("seed", "optimizer.name", "data.special_tokens", "data.split", "data.val_fraction"),
    *("data.order", "trainer.draws", "tokenizer.vocab_size", "tokenizer.train_mb"),
    *("tokenizer.encoding", "tokenizer.pattern"),
}
HIGH_LR = 2e-3  # for weights that have learned already


@dataclass(kw_only=True, slots=True, frozen=True)
class Prepared:
    tokenizer: Tokenizer
    corpus: Corpus
    model: ModelConfig
    plan: Plan
    machine: Machine
    ways: "Ways"
    start_from: "Weights | None"  # the first weights, a resumed run's own; None: random ones
    resume_from: Path | None  # checkpoint with the whole training state
    first_step: int  # optimizer steps that a resumed run has behind it
    unfinished: bool  # what was due at that step, beside the checkpoint, is still to do
    changes: list[str]  # settings that a resumed run goes on with other values of
    sample_prompt: str  # as the tokenizer can read it, and
    sample_decoding: DecodingConfig
    draws: bool  # pictures


def preflight(config: TrainConfig, run: Path) -> Prepared:
    """Check the settings against data and machine. Raises InputError or ArtifactError within seconds."""
    forget()
    resume_from, changes = _resume_from(config, run), []
    from gpt_pretrain.runs.pretrained import fitting_model, open_pretrained, tokenizer_of
    from gpt_pretrain.training.first_sample import decoding_for, prompt_for  # torch takes seconds
    from gpt_pretrain.training.ways import find_ways

    if resume_from is None:
        start_from = open_pretrained(config.weights, config.model)
    else:
        changes = _changes(config, resume_from)
        start_from = _open_resumed(config, resume_from)
    if resume_from is None and start_from is not None and config.optimizer.lr > HIGH_LR:
        log.warning(
            "optimizer.lr=%g soon undoes what weights have learned: optimizer=adamw optimizer.lr=5e-5 suits",
            config.optimizer.lr,
        )
    if start_from is None:
        tokenizer = tokenizer_for(config.data, config.tokenizer)
    else:
        tokenizer = tokenizer_of(start_from, config.weights, config.tokenizer, config.data)
    model = fitting_model(start_from, config.model, tokenizer.vocab_size)
    machine = planned_machine(config) if config.plan else find_machine(config.trainer)
    if not config.plan:
        may_shard = config.trainer.strategy != "ddp" and machine.strategy != "one"
        check_memory(machine, model, config.optimizer, config.data.batch_size, may_shard=may_shard)
    corpus = load_corpus(config.data, tokenizer)
    check_windows(corpus, config.data, model.context_length)
    n_windows = epoch_windows(corpus, config.data, model.context_length)
    plan = make_plan(config, model, n_windows=n_windows, world_size=machine.world_size)
    machine = with_strategy(config, machine, model, plan.accumulate)
    flops = flops_per_token(model) * plan.tokens_per_step * plan.steps / plan.world_size
    ways = find_ways(config.trainer, machine, model, 0.0 if config.plan else flops)
    if ways.fp8:
        _check_float8(model, config.data.batch_size)
    if config.trainer.draws == "book":
        _check_draws(machine, plan, config.trainer.on_divergence)
    first_step, unfinished = (0, True) if resume_from is None else _check_goes_on(resume_from, corpus, plan)
    return Prepared(
        tokenizer=tokenizer,
        corpus=corpus,
        model=model,
        plan=plan,
        machine=machine,
        ways=ways,
        start_from=start_from,
        resume_from=resume_from,
        first_step=first_step,
        unfinished=unfinished,
        changes=changes,
        sample_prompt=prompt_for(tokenizer, config.trainer.sample_prompt or config.data.prompt, corpus.val),
        sample_decoding=decoding_for(tokenizer, config.decoding),
        draws=config.logger.pictures is not False,
    )


def flops_per_token(model: ModelConfig) -> int:
    """Of a forward and a backward pass."""
    import torch

    from gpt_pretrain.model import GPTModel

    with torch.device("meta"):  # of its shape alone: no memory, no numbers
        return GPTModel(model).flops_per_token()


def resumed_at(prepared: Prepared, checkpoint: Path) -> Prepared:
    """The same run, to go on from another checkpoint of its own."""
    from gpt_pretrain.weights.read import open_weights

    first_step, unfinished = _check_goes_on(checkpoint, prepared.corpus, prepared.plan)
    return dataclasses.replace(
        prepared,
        start_from=open_weights(checkpoint),
        resume_from=checkpoint,
        first_step=first_step,
        unfinished=unfinished,
    )


def _resume_from(config: TrainConfig, run: Path) -> Path | None:
    """The checkpoint to go on from: the one that the command line was rewritten to, or a run's newest."""
    if config.resume is None and has_saved(run) and not restarted():
        raise InputError(
            f"{run} holds a run already: {typed('resume', str(run))} goes on with it, "
            "or give another folder (hydra.run.dir)"
        )
    resumed = run if config.resume is None else Path(config.resume)
    if resumed.parent.name == "checkpoints":
        return resumed
    if not rank():
        restore(resumed)
    checkpoint, passed_over = newest_valid(resumed)
    for line in passed_over:
        log.warning("passed over: %s", line)
    return checkpoint


def _changes(config: TrainConfig, checkpoint: Path) -> list[str]:
    """What differs from the settings that the run had so far, a line each.

    Raises InputError where it decides which batches are due next.
    """
    changed = differences(config, read_record(checkpoint))
    deciding = {key.removesuffix(".name"): pair for key, pair in changed.items() if key in DECIDE_BATCHES}
    if "data.sources" in changed:  # which may have moved, but keep their shares
        shares = [list((sources or {}).values()) for sources in changed["data.sources"]]
        deciding["the weights of data.sources"] = (shares[0], shares[1])
    now, then = ({key: pair[side] for key, pair in deciding.items()} for side in (0, 1))
    _check_unchanged(checkpoint, now, then)
    said = {"trainer.eval_batches": ": of another part of the text, so that the best so far counts no more"}
    return [
        f"{key} was {_shown(then)}, is {_shown(now)}{said.get(key, '')}"
        for key, (now, then) in changed.items()
    ]


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _open_resumed(config: TrainConfig, checkpoint: Path) -> "Weights":
    """The weights of a run that goes on; where they first came from does not matter any more.

    Raises InputError for settings that would make another model of it.
    """
    from gpt_pretrain.weights.read import open_weights

    weights = open_weights(checkpoint)
    given = {f"model.{key}": getattr(config.model, key) for key in SHAPE}
    given = {key: value for key, value in given.items() if value is not None}
    _check_unchanged(checkpoint, given, {f"model.{key}": getattr(weights.config, key) for key in SHAPE})
    return weights


def _check_draws(machine: Machine, plan: Plan, on_divergence: str) -> None:
    """Raise InputError where one generator cannot serve the run as it serves the book's loop."""
    if on_divergence == "rollback":
        raise InputError(
            "trainer.on_divergence=rollback leaves batches out, and trainer.draws=book can leave none out: "
            "set trainer.on_divergence=stop or skip"
        )
    if machine.accelerator != "cpu" or machine.world_size > 1:
        raise InputError(
            "trainer.draws=book has one generator, a CPU's, and this run has "
            f"{machine.world_size} {machine.accelerator} processes: set trainer=cpu, or trainer.draws=step "
            "and data.order=seed"
        )
    if plan.accumulate > 1:
        raise InputError(
            f"trainer.draws=book takes a step for each batch, and trainer.global_batch_tokens makes one of "
            f"{plan.accumulate}: leave it out, or set trainer.draws=step and data.order=seed"
        )


def _check_float8(model: ModelConfig, batch_size: int) -> None:
    """Raise InputError for matrices that GPUs do not multiply in eight bits."""
    from gpt_pretrain.training.float8 import MULTIPLE

    tokens = batch_size * model.context_length
    if model.emb_dim % MULTIPLE or tokens % MULTIPLE:
        raise InputError(
            f"trainer.fp8=true needs a width and tokens at a time that are multiples of {MULTIPLE}: "
            f"model.emb_dim is {model.emb_dim}, data.batch_size x model.context_length {tokens}"
        )


def _check_goes_on(checkpoint: Path, corpus: Corpus, plan: Plan) -> tuple[int, bool]:
    """The steps behind the run, and whether something of the last one is still to do. Raises InputError where
    another batch than the one due would come next, ArtifactError for a state that is none.
    """
    from gpt_pretrain.runs.checkpoint import check_training

    with _training_state(checkpoint):
        progress = check_training(checkpoint)
        corpus_then, plan_then = progress["GPTDataModule"]["corpus"], progress["plan"]
        first_step, first_batch = progress["global_step"], progress["GPTDataModule"]["first_batch"]
        stop = progress["callbacks"].get("Stop", {})  # an earlier version kept nothing
        unfinished = any(stop.get("unfinished", {}).values())
    check_same(corpus, corpus_then, str(checkpoint.parent.parent))
    names = {
        "batch_tokens": "tokens at once (data.batch_size, trainer.devices)",
        "accumulate": "micro-steps a step (trainer.global_batch_tokens)",
        "stride": "data.stride",
        "n_windows": "data.max_windows (windows an epoch)",
    }
    given = {name: getattr(plan, key) for key, name in names.items()}
    with _training_state(checkpoint):
        then = {name: plan_then[key] for key, name in names.items()}
    _check_unchanged(checkpoint, given, then)
    with _training_state(checkpoint):
        if first_batch != first_step * plan.accumulate:
            raise ValueError(f"step {first_step} is not before batch {first_batch}")
    return first_step, unfinished


@contextmanager
def _training_state(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{checkpoint} lacks what a run needs to go on ({error!r}): "
            f"begin a new one from its weights: weights=checkpoint {typed('weights.path', str(checkpoint))}"
        ) from error


def _check_unchanged(checkpoint: Path, given: dict[str, Any], trained: dict[str, Any]) -> None:
    run = checkpoint.parent.parent
    for name, value in given.items():
        if value != trained[name]:
            raise InputError(
                f"{typed('resume', str(run))}: {name} is {_shown(value)}, "
                f"but it was {_shown(trained[name])} so far\n"
                "leave the run's settings as they are, or begin a new one from its weights: "
                f"weights=checkpoint {typed('weights.path', str(run))}"
            )
