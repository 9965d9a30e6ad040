"""`train`: the assembly of a run. Clipping and the learning rate are module.py's, what is logged Metrics'."""

import ctypes
import dataclasses
import logging
import platform
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning as L
import torch

from gpt_pretrain.config import TrainConfig, to_plain
from gpt_pretrain.config.trainer import TrainerConfig
from gpt_pretrain.launch.meeting import Meeting
from gpt_pretrain.launch.process import rank
from gpt_pretrain.launch.signals import deferred
from gpt_pretrain.model import GPTModel
from gpt_pretrain.runs.folders import newest_valid
from gpt_pretrain.terminal.watching import watching, watching_threads
from gpt_pretrain.tokenizer import byte_lengths
from gpt_pretrain.training.callbacks.checkpoints import Checkpoints
from gpt_pretrain.training.callbacks.metrics import Clock, Metrics
from gpt_pretrain.training.callbacks.parts import Parts
from gpt_pretrain.training.callbacks.profile import Profile
from gpt_pretrain.training.callbacks.progress_bar import ProgressBar
from gpt_pretrain.training.callbacks.samples import Samples
from gpt_pretrain.training.callbacks.stop import StepsEnd, Stop
from gpt_pretrain.training.callbacks.unfinished import Unfinished
from gpt_pretrain.training.callbacks.verdict import Hear, Verdict
from gpt_pretrain.training.checkpoint_io import DirectoryCheckpointIO
from gpt_pretrain.training.columns import NO_WORDS, Words
from gpt_pretrain.training.company import Company
from gpt_pretrain.training.datamodule import GPTDataModule
from gpt_pretrain.training.divergence import Divergence, RolledBackError
from gpt_pretrain.training.draws import BookDraws, Draws, StepDraws
from gpt_pretrain.training.ending import Ending
from gpt_pretrain.training.environment import build_environment
from gpt_pretrain.training.layers import Layers
from gpt_pretrain.training.loggers import build_loggers
from gpt_pretrain.training.module import GPTModule
from gpt_pretrain.training.opening import open_records
from gpt_pretrain.training.preflight import Prepared, resumed_at
from gpt_pretrain.training.report import Summary, explain, read_summary, short
from gpt_pretrain.training.strategies import build_strategy
from gpt_pretrain.training.ways import take
from gpt_pretrain.weights.read import build_model

log = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    prepared: Prepared,
    run: Path,
    words: Words = NO_WORDS,
    hear: Hear | None = None,
    meeting: Meeting | None = None,
    callbacks: Sequence[L.Callback] = (),
) -> Summary:
    """Train as prepared, in the folder `run`; returns what summary.json holds. `words`, the command line's
    that led to `config`, are recorded, and nothing follows from them. Of processes that another program
    started, all call it, with the `meeting` where they met.

    `hear` is told each evaluation, and may end the run. `callbacks` of your own may, too; what is
    saved has seen them.

    Raises DivergedError where the loss is no number, StoppedError after a signal, then with the state saved.
    """
    _begin(run)
    if (ended := _already_ended(prepared, run)) is not None:
        return ended
    divergence = build_divergence(config.trainer)
    clock = Clock()
    company = Company(config.trainer, prepared.plan.world_size, run, prepared.resume_from, meeting)
    with deferred():
        while True:
            try:
                return _fit(config, prepared, run, words, divergence, clock, hear, company, callbacks)
            except RolledBackError as found:
                prepared, clock.went_back = _rolled_back(prepared, run, divergence, found), True


def _fit(
    config: TrainConfig,
    prepared: Prepared,
    run: Path,
    words: Words,
    divergence: Divergence,
    clock: Clock,
    hear: Hear | None,
    company: Company,
    own: Sequence[L.Callback],
) -> Summary:
    plan, machine, settings = prepared.plan, prepared.machine, config.trainer
    module = build_module(config, prepared, divergence)
    data = build_data(config, prepared, module.draws, lambda: divergence.n_passed_over)
    parts = Parts(plan)
    stop = Stop(plan, parts.step_ended)
    layers = Layers() if config.logger.layers else None
    metrics = Metrics(plan, stop, settings.log_every, parts, layers, clock)
    samples = Samples(run, plan, stop, prepared.tokenizer, prepared.sample_prompt, prepared.sample_decoding)
    bar = ProgressBar(plan, stop, metrics)
    verdict: list[L.Callback] = [] if hear is None else [Verdict(stop, hear)]
    checkpoints = Checkpoints(run, plan, stop, settings, bar.during)
    # in this order: see their docstrings
    callbacks: list[L.Callback] = [stop, *own, StepsEnd(plan), metrics, samples, bar, *verdict]
    callbacks += [company, checkpoints, parts, Unfinished(stop, metrics, samples)]
    callbacks += [Profile(run, plan)] if settings.profile else []
    trainer = _build_trainer(config, prepared, run, callbacks, company)
    if not clock.went_back:  # then it has been said
        with watching("the run's plan"):
            explain(config, prepared, run, module.model)
    if not rank():
        open_records(config, machine, run, words, trainer.loggers)
    if prepared.draws:
        with watching("loss.png"):  # drawn at the end, tried now
            import gpt_pretrain.training.plots  # noqa: F401
    ending = Ending(config, prepared, run, words, trainer, module, stop, metrics, samples, checkpoints)
    with ending, watching_threads(), company:
        trainer.fit(module, data, ckpt_path=prepared.resume_from)
    return ending.summary


def _build_trainer(
    config: TrainConfig, prepared: Prepared, run: Path, callbacks: list[L.Callback], company: Company
) -> L.Trainer:
    plan, machine = prepared.plan, prepared.machine
    at_its_end = prepared.first_step >= plan.steps  # then what is left of the last step needs a loop to be in
    return L.Trainer(
        accelerator=machine.accelerator,
        devices=machine.devices,
        num_nodes=machine.num_nodes,
        strategy=build_strategy(machine.strategy, company, plan.world_size),
        precision=machine.precision,  # type: ignore[arg-type]
        max_steps=max(plan.steps, prepared.first_step) + (at_its_end and prepared.unfinished),
        max_epochs=-1,  # the loader is as long as the run: Lightning sees a single epoch
        accumulate_grad_batches=plan.accumulate,
        val_check_interval=plan.eval_every * plan.accumulate,  # Lightning counts micro-steps here
        num_sanity_val_steps=0 if prepared.resume_from else -1,  # the validation loss before the first step
        use_distributed_sampler=False,  # batches know their rank
        logger=build_loggers(
            config.logger, run, prepared.first_step + (not prepared.unfinished), prepared.draws
        ),
        callbacks=callbacks,
        plugins=[
            DirectoryCheckpointIO(
                prepared.model, prepared.tokenizer, to_plain(config), config.trainer.save_in_background
            ),
            build_environment(),
        ],
        enable_checkpointing=False,  # ours
        enable_progress_bar=False,  # ours
        enable_model_summary=False,
        default_root_dir=run,
    )


def build_divergence(settings: TrainerConfig) -> Divergence:
    return Divergence(settings.on_divergence, settings.divergence_budget, settings.spike)


def _rolled_back(prepared: Prepared, run: Path, divergence: Divergence, found: RolledBackError) -> Prepared:
    """The run from its newest sound checkpoint on, or from its beginning, without the batches since."""
    before, _ = newest_valid(run)
    if before is None:
        again = dataclasses.replace(prepared, first_step=0, unfinished=True)
    else:
        again = resumed_at(prepared, before)
    divergence.roll_back(again.first_step, found.step)
    log.warning(
        "step %d: %s; back to step %d, without the batches of the %d steps since",
        *(found.step, found, again.first_step, found.step - again.first_step),
    )
    return again


def _already_ended(prepared: Prepared, run: Path) -> Summary | None:
    """What a run said at its end that nothing is left to do of; None where it goes on, or was killed before
    it could say so: then it is fitted for no step, and has its summary.
    """
    plan, step = prepared.plan, prepared.first_step
    if step < plan.steps or prepared.unfinished:
        return None
    summary = read_summary(prepared.resume_from, step)  # beside the checkpoint, where all ranks find it
    if summary is not None:
        log.info("%s is at its last step %d already (%s): give a larger one", short(run), step, plan.budget)
    return summary


def _build_model(config: TrainConfig, prepared: Prepared) -> GPTModel:
    if prepared.start_from is None:
        model = GPTModel(prepared.model)
    else:
        model = build_model(prepared.start_from, prepared.model, own=True)
    take(prepared.ways, model)
    for block in model.blocks:
        block.recompute = config.trainer.activation_checkpointing  # type: ignore[assignment]
    return model


def _build_draws(config: TrainConfig, prepared: Prepared) -> Draws:
    if config.trainer.draws == "book":
        return BookDraws(torch.get_rng_state(), steps_per_epoch=int(prepared.plan.steps_per_epoch))
    return StepDraws(config.seed)


def build_module(config: TrainConfig, prepared: Prepared, divergence: Divergence | None = None) -> GPTModule:
    """The LightningModule of a run, for `train` or for a trainer of your own."""
    torch.manual_seed(config.seed)  # for the initial weights; step by step, draws are seeded anew
    model = _build_model(config, prepared)
    draws = _build_draws(config, prepared)  # the book's go on where the initial weights' have ended
    return GPTModule(
        model,
        optimizer=config.optimizer,
        schedule=config.schedule,
        plan=prepared.plan,
        draws=draws,
        grad_clip=config.trainer.grad_clip,
        grad_clip_from=config.trainer.grad_clip_from,
        byte_lengths=torch.from_numpy(byte_lengths(prepared.tokenizer)),
        divergence=divergence or build_divergence(config.trainer),
    )


def build_data(
    config: TrainConfig, prepared: Prepared, draws: Draws, passed_over: Callable[[], int] = lambda: 0
) -> GPTDataModule:
    """The LightningDataModule of a run; `draws` are the module's."""
    return GPTDataModule(
        prepared.corpus,
        config.data,
        prepared.plan,
        context_length=prepared.model.context_length,
        seed=config.seed,
        eval_batches=config.trainer.eval_batches,
        eval_train=config.trainer.eval_train,
        book=draws if config.data.order == "book" and isinstance(draws, BookDraws) else None,
        passed_over=passed_over,
    )


def _begin(run: Path) -> None:
    _quieten()
    keep_freed_memory()
    run.mkdir(parents=True, exist_ok=True)


def _quieten() -> None:
    """Lightning's hints address its direct users; what ours need to know, the run says itself."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning.*")
    warnings.filterwarnings("ignore", message=r".*(LeafSpec|lr_scheduler\.step).*")


def keep_freed_memory() -> None:
    """Let glibc keep large blocks instead of faulting them in anew each step: up to twice as fast."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-4, 0)  # M_MMAP_MAX
    libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    libc.mallopt(-2, 64 << 20)  # M_TOP_PAD
