"""`train`: the assembly of a run. Reading it shows every object that can exist."""

import ctypes
import logging
import platform
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy

from gpt_pretrain.config import TrainConfig, to_plain
from gpt_pretrain.config.words import typed
from gpt_pretrain.errors import DivergedError, StoppedError
from gpt_pretrain.model import GPTModel
from gpt_pretrain.runs.checkpoint import read_training
from gpt_pretrain.terminal.watching import watching, watching_threads
from gpt_pretrain.training.callbacks.checkpoints import Checkpoints, DirectoryCheckpointIO
from gpt_pretrain.training.callbacks.metrics import Metrics
from gpt_pretrain.training.callbacks.progress_bar import ProgressBar
from gpt_pretrain.training.callbacks.rhythm import is_interrupted
from gpt_pretrain.training.callbacks.samples import Samples
from gpt_pretrain.training.callbacks.stop import Stop
from gpt_pretrain.training.datamodule import GPTDataModule
from gpt_pretrain.training.loggers import build_loggers
from gpt_pretrain.training.module import GPTModule
from gpt_pretrain.training.preflight import Preparation
from gpt_pretrain.training.report import conclude, explain, read_summary, short, summarize
from gpt_pretrain.weights.read import build_model

log = logging.getLogger(__name__)


def train(config: TrainConfig, prepared: Preparation, run: Path) -> dict[str, Any]:
    """Train as prepared, in the folder `run`; returns what summary.json holds.

    Raises DivergedError where the loss is no number, StoppedError after a signal, both with everything saved.
    """
    started = time.perf_counter()
    _quieten()
    keep_freed_memory()
    plan, settings = prepared.plan, to_plain(config)
    first_step = 0 if prepared.resume_from is None else _step_of(prepared.resume_from)
    if first_step >= plan.steps and (summary := read_summary(run, first_step)):
        log.info(
            "%s ended already at step %d by %s: a larger one goes on", short(run), first_step, plan.reason
        )
        return summary
    torch.manual_seed(config.seed)
    module = GPTModule(
        _build_model(prepared),
        optimizer=config.optimizer,
        schedule=config.schedule,
        plan=plan,
        seed=config.seed,
        grad_clip=config.trainer.grad_clip,
        val_bytes_per_token=prepared.corpus.val_bytes_per_token,
    )
    data = GPTDataModule(
        config.data,
        prepared.tokenizer,
        plan,
        context_length=prepared.model.context_length,
        seed=config.seed,
        eval_batches=config.trainer.eval_batches,
        eval_train=config.trainer.eval_train,
        corpus=prepared.corpus,
    )
    if config.trainer.compile:
        torch.compiler.reset()  # a sweep's earlier shapes would use up the limit of recompilations
        for block in module.model.blocks:
            block.compile()  # in place: parameter names stay as they are
    stop = Stop(plan)
    metrics = Metrics(plan, config.trainer.log_every)
    samples = Samples(run, plan, prepared.tokenizer, prepared.sample_prompt, prepared.sample_decoding)
    checkpoints = Checkpoints(
        run,
        plan,
        every=config.trainer.checkpoint_every,
        keep_best=config.trainer.keep_best,
        keep_last=config.trainer.keep_last,
    )
    trainer = L.Trainer(
        accelerator=prepared.accelerator,
        devices=prepared.devices,
        num_nodes=prepared.num_nodes,
        strategy=DDPStrategy(gradient_as_bucket_view=True) if plan.world_size > 1 else "auto",
        precision=_precision(config.trainer.precision, prepared.accelerator),  # type: ignore[arg-type]
        max_steps=plan.steps,
        max_epochs=-1,  # the loader is as long as the run: Lightning sees a single epoch
        accumulate_grad_batches=plan.accumulate,
        val_check_interval=plan.eval_every * plan.accumulate,  # Lightning counts micro-steps here
        num_sanity_val_steps=0 if prepared.resume_from else -1,  # the validation loss before the first step
        use_distributed_sampler=False,  # batches know their rank
        logger=build_loggers(config.logger, run, first_step),
        callbacks=[stop, metrics, samples, ProgressBar(plan), checkpoints],
        plugins=[DirectoryCheckpointIO(prepared.model, prepared.tokenizer, settings)],
        enable_checkpointing=False,  # ours
        enable_progress_bar=False,  # ours
        enable_model_summary=False,
        default_root_dir=run,
    )
    with watching("the run's plan"):
        explain(config, prepared, run, module.model, first_step)
    with watching("loss.png"):  # drawn at the end, tried now
        import gpt_pretrain.training.plots  # noqa: F401
    exit_reason = "failed"
    try:
        with watching_threads():
            trainer.fit(module, data, ckpt_path=prepared.resume_from)
        # A signal that came after the last step has found nothing to stop.
        exit_reason = f"signal {stop.signal_number}" if is_interrupted(trainer) else "finished"
    except DivergedError:
        exit_reason = "diverged"
        raise
    except StoppedError as error:
        exit_reason = f"signal {error.exit_code - 128}"
        raise
    except SystemExit as error:  # Lightning's answer to a Ctrl-C before anyone listens
        cause = error.__context__
        if isinstance(cause, KeyboardInterrupt):
            exit_reason = f"signal {int(signal.SIGINT)}"
        raise (cause or error) from None
    finally:
        summary = summarize(
            plan,
            module.model,
            metrics,
            steps=trainer.global_step,
            exit_reason=exit_reason,
            seconds=time.perf_counter() - started,
            best_checkpoint=checkpoints.best_checkpoint(),
        )
        if trainer.is_global_zero:
            conclude(config, plan, run, trainer.loggers, summary, samples.newest)
    if is_interrupted(trainer) and stop.signal_number is not None:
        raise StoppedError(
            stop.signal_number,
            f"stopped by signal {stop.signal_number} at step {summary['steps']}, saved: "
            f"go on with {typed('resume', short(run))}",
        )
    return summary


def _build_model(prepared: Preparation) -> GPTModel:
    if prepared.start_from is None:
        return GPTModel(prepared.model)
    return build_model(prepared.start_from, prepared.model, own=True)


def _step_of(checkpoint: Path) -> int:
    return int(read_training(checkpoint).progress["global_step"])


def _precision(wanted: str, accelerator: str) -> str:
    """`auto` is bf16-mixed where the hardware multiplies bfloat16 itself, else full precision."""
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if multiplies_bfloat16(accelerator) else "32-true"


def multiplies_bfloat16(accelerator: str) -> bool:
    """Whether the hardware has instructions for it. Elsewhere it is emulated, slower than float32."""
    if accelerator == "gpu":
        return torch.cuda.get_device_capability() >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _quieten() -> None:
    """Lightning's hints address its direct users; what ours need to know, the run says itself."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning.*")
    warnings.filterwarnings("ignore", message=r".*(LeafSpec|lr_scheduler\.step).*")


def keep_freed_memory() -> None:
    """Let glibc keep large blocks instead of returning and faulting them in anew each step: up to twice as
    fast.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-4, 0)  # M_MMAP_MAX
    libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    libc.mallopt(-2, 64 << 20)  # M_TOP_PAD
