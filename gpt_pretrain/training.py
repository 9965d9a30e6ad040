"""`train`: the assembly of a run. Reading it shows every object that can exist."""

import ctypes
import json
import logging
import math
import platform
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from gpt_pretrain.callbacks.checkpoints import Checkpoints, DirectoryCheckpointIO
from gpt_pretrain.callbacks.metrics import Metrics
from gpt_pretrain.callbacks.plots import draw_loss
from gpt_pretrain.callbacks.progress import ProgressBar
from gpt_pretrain.callbacks.samples import Samples
from gpt_pretrain.callbacks.stop import Stop
from gpt_pretrain.checkpoint import read_parameters, read_training
from gpt_pretrain.config import TrainConfig, to_plain
from gpt_pretrain.data.datamodule import GPTDataModule
from gpt_pretrain.errors import DivergedError, StoppedError
from gpt_pretrain.loss import perplexity
from gpt_pretrain.metrics_csv import MetricsCSV, read_rows
from gpt_pretrain.model import GPTModel
from gpt_pretrain.module import GPTModule
from gpt_pretrain.preparation import Preparation
from gpt_pretrain.tokenizer import decode

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
    samples = Samples(run, plan, prepared.tokenizer, config.trainer.sample_prompt, config.decoding)
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
        logger=_loggers(config, run, first_step),
        callbacks=[stop, metrics, samples, ProgressBar(plan), checkpoints],
        plugins=[DirectoryCheckpointIO(prepared.model, prepared.tokenizer, settings)],
        enable_checkpointing=False,  # ours
        enable_progress_bar=False,  # ours
        enable_model_summary=False,
        default_root_dir=run,
    )
    _explain(config, prepared, run, module.model, first_step)
    exit_reason = "finished"
    try:
        if first_step < plan.steps:
            trainer.fit(module, data, ckpt_path=prepared.resume_from)
    except DivergedError:
        exit_reason = "diverged"
        raise
    finally:
        if stop.signal_number is not None:
            exit_reason = f"signal {stop.signal_number}"
        summary = _summary(
            run, prepared, module, metrics, checkpoints, exit_reason, time.perf_counter() - started
        )
        if trainer.is_global_zero:
            _conclude(config, prepared, run, trainer, summary, samples.newest)
    if stop.signal_number is not None:
        raise StoppedError(
            stop.signal_number,
            f"stopped by signal {stop.signal_number} at step {summary['steps']}, saved: "
            f"go on with resume={_short(run)}",
        )
    return summary


def _build_model(prepared: Preparation) -> GPTModel:
    model = GPTModel(prepared.model)
    if prepared.start_from is not None:
        model.load_state_dict(read_parameters(prepared.start_from, prepared.model))
    return model


def _step_of(checkpoint: Path) -> int:
    return int(read_training(checkpoint).progress["global_step"])


def _precision(wanted: str, accelerator: str) -> str:
    """`auto` is bf16-mixed where the hardware multiplies bfloat16 itself, else full precision."""
    if wanted != "auto":
        return wanted
    if accelerator == "gpu":
        native = torch.cuda.get_device_capability() >= (8, 0)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


def _loggers(config: TrainConfig, run: Path, first_step: int) -> list[Logger]:
    loggers: list[Logger] = []
    if config.logger.csv:
        loggers.append(MetricsCSV(run / "metrics.csv", first_step))
    if config.logger.tensorboard:
        purge = first_step + 1 if first_step else None  # a resumed run writes these steps anew
        loggers.append(
            TensorBoardLogger(run, name="", version="tensorboard", default_hp_metric=False, purge_step=purge)
        )
    return loggers


def _explain(config: TrainConfig, prepared: Preparation, run: Path, model: GPTModel, first_step: int) -> None:
    """Say what the run will do, each derived number with its reason."""
    plan, corpus, shape = prepared.plan, prepared.corpus, prepared.model
    log.info(
        "data    %s: %s characters, %s training and %s validation tokens (%s)",
        config.data.source,
        *(f"{count:,}" for count in (corpus.n_characters, len(corpus.train), len(corpus.val))),
        prepared.tokenizer.name,
    )
    log.info("        begins: %s", repr(decode(prepared.tokenizer, corpus.train[:24].tolist())))
    log.info(
        "model   %s parameters: %d layers, %d heads, width %d, context %d, vocabulary %s",
        *(f"{model.n_params():,}", shape.n_layers, shape.n_heads, shape.emb_dim, shape.context_length),
        f"{shape.vocab_size:,}",
    )
    log.info(
        "plan    %s windows / (%d sequences x %d devices x %d micro-steps) = %.1f steps an epoch; %d by %s",
        *(f"{plan.n_windows:,}", config.data.batch_size, plan.world_size, plan.accumulate),
        *(plan.steps_per_epoch, plan.steps, plan.reason),
    )
    log.info(
        "        %s tokens a step, evaluation every %d steps, on %d %s",
        *(f"{plan.tokens_per_step:,}", plan.eval_every, prepared.devices, prepared.accelerator),
    )
    log.info("run     %s%s", _short(run), f", resumed at step {first_step}" if first_step else "")


def _summary(
    run: Path,
    prepared: Preparation,
    module: GPTModule,
    metrics: Metrics,
    checkpoints: Checkpoints,
    exit_reason: str,
    seconds: float,
) -> dict[str, Any]:
    """One flat object; losses that were never measured are null."""
    newest = {
        row_key: value for row in read_rows(run / "metrics.csv") for row_key, value in row.items()
    } | metrics.newest
    steps = module.trainer.global_step if module._trainer is not None else int(newest.get("step", 0))
    val_loss = newest.get("val/loss")
    best = checkpoints.best_checkpoint()
    return {
        "steps": steps,
        "tokens_seen": steps * prepared.plan.tokens_per_step,
        "train_loss": newest.get("train/eval_loss", newest.get("train/loss")),
        "val_loss": val_loss,
        "best_val_loss": metrics.best_val_loss,
        "val_perplexity": None if val_loss is None else perplexity(val_loss),
        "tokens_per_sec": newest.get("tokens_per_sec"),
        "seconds": round(seconds, 2),
        "n_params": module.model.n_params(),
        "best_checkpoint": None if best is None else str(best),
        "exit_reason": exit_reason,
    }


def _conclude(
    config: TrainConfig,
    prepared: Preparation,
    run: Path,
    trainer: L.Trainer,
    summary: dict[str, Any],
    sample: str,
) -> None:
    """Write summary, plot and hyper-parameters; say on one screen how it went and what to run next."""
    (run / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    rows = read_rows(run / "metrics.csv")
    if rows:
        title = f"{config.data.source}, {summary['n_params']:,} parameters"
        draw_loss(rows, run / "loss.png", tokens_per_step=prepared.plan.tokens_per_step, title=title)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            final = {"hparam/val_loss": summary["val_loss"], "hparam/best_val_loss": summary["best_val_loss"]}
            logger.log_hyperparams(
                _flat(to_plain(config)), {k: math.nan if v is None else v for k, v in final.items()}
            )
            logger.finalize("success")
    if summary["val_loss"] is None:
        return
    first = next((row["val/loss"] for row in rows if "val/loss" in row), summary["val_loss"])
    log.info("")
    log.info(
        "%s after %d steps and %s tokens in %.0f s, %s tokens/s",
        *(summary["exit_reason"], summary["steps"], f"{summary['tokens_seen']:,}", summary["seconds"]),
        f"{summary['tokens_per_sec'] or 0:,.0f}",
    )
    log.info(
        "validation loss %.3f -> %.3f (best %.3f), perplexity %.1f",
        *(first, summary["val_loss"], summary["best_val_loss"], summary["val_perplexity"]),
    )
    if sample:
        log.info("it writes: %s", " ".join(sample.split()))
    log.info("")
    log.info(
        "in %s: loss.png, samples.txt, metrics.csv, tensorboard/, checkpoints/, summary.json", _short(run)
    )
    log.info('next    python generate.py prompt="%s"', config.trainer.sample_prompt)
    log.info("        python train.py resume=%s trainer.max_steps=%d", _short(run), 2 * summary["steps"])


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


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
    for option, value in (
        (-4, 0),
        (-1, 2**31 - 1),
        (-2, 64 << 20),
    ):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
        libc.mallopt(option, value)
