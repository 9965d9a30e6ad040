"""What a run says of itself: its plan before, its summary, plot and next commands after."""

import logging
import math
import os
import shlex
import signal
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from rich import get_console

from gpt_pretrain.config import TrainConfig, to_plain
from gpt_pretrain.config.words import typed
from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.foreign import json_text, read_bytes, read_json
from gpt_pretrain.loss import perplexity
from gpt_pretrain.model import GPTModel
from gpt_pretrain.runs.folders import find_checkpoints
from gpt_pretrain.terminal.curve import draw
from gpt_pretrain.terminal.logs import COMMAND
from gpt_pretrain.terminal.text import INDENT, folded
from gpt_pretrain.terminal.watching import watching
from gpt_pretrain.tokenizer import decode
from gpt_pretrain.training.callbacks.metrics import Metrics
from gpt_pretrain.training.columns import Words, columns, flat
from gpt_pretrain.training.loggers import TensorBoard
from gpt_pretrain.training.machine import Machine
from gpt_pretrain.training.metrics_csv import read_rows
from gpt_pretrain.training.plan import Plan
from gpt_pretrain.training.preflight import Prepared
from gpt_pretrain.training.provenance import ENVIRONMENT, device_name

log = logging.getLogger(__name__)

Summary = dict[str, Any]
PAGE = "report.html"
LARGEST_PICTURE = 16 << 20  # bytes
WIDEST, CURVE_LINES = 80, 9  # of the curve at the end
# The numbers of the HParams table.
FINALS = ("best_val_loss", "val_loss", "val_perplexity", "tokens_per_sec", "seconds")


def explain(config: TrainConfig, prepared: Prepared, run: Path, model: GPTModel) -> None:
    """Say what the run will do, each derived number with its reason."""
    plan, machine, corpus, shape = prepared.plan, prepared.machine, prepared.corpus, prepared.model
    log.info(
        "data    %s: %s characters, %s training and %s validation tokens (%s)",
        config.data.source,
        *(f"{count:,}" for count in (corpus.n_characters, len(corpus.train), len(corpus.val))),
        prepared.tokenizer.name,
    )
    for remark in corpus.remarks():
        log.info("        %s", remark)
    log.info("        begins: %s", repr(decode(prepared.tokenizer, corpus.train[:24].tolist())))
    log.info(
        "model   %s parameters: %d layers, %d heads, width %d, context %d, vocabulary %s",
        *(f"{model.n_params():,}", shape.n_layers, shape.n_heads, shape.emb_dim, shape.context_length),
        f"{shape.vocab_size:,}",
    )
    log.info(
        "plan    %s windows / (%d sequences x %d devices x %d micro-steps) = %.1f steps an epoch; %d by %s",
        *(f"{plan.n_windows:,}", config.data.batch_size, plan.world_size, plan.accumulate),
        *(plan.steps_per_epoch, plan.steps, plan.budget),
    )
    log.info(
        "        %s tokens a step, evaluation every %d steps", f"{plan.tokens_per_step:,}", plan.eval_every
    )
    log.info("machine %s", _machine(config, machine))
    log.info("        %s", prepared.ways)
    if machine.hint:
        log.info("        %s", machine.hint)
    resumed = f", resumed at step {prepared.first_step}" if prepared.first_step else ""
    log.info("run     %s%s", short(run), resumed)
    for change in prepared.changes:
        log.info("        changed: %s", change)


def _machine(config: TrainConfig, machine: Machine) -> str:
    """Devices, threads and precision, each with its reason."""
    name = device_name(machine)
    devices = f"{machine.world_size} x {name}" if machine.world_size > 1 else name
    if machine.accelerator == "cpu":
        threads = torch.get_num_threads()
        given = ", as OMP_NUM_THREADS says" if os.environ.get("OMP_NUM_THREADS") else ""
        devices += f", {threads} thread{'s' * (threads > 1)} on {os.cpu_count()} cores{given}"
    if config.trainer.precision != "auto":
        why = ""
    elif machine.precision == "bf16-mixed":
        why = ": it multiplies bfloat16 itself"
    else:
        why = ": it does not multiply bfloat16 itself"
    if machine.strategy == "fsdp":
        copies = ": whole copies would not fit" if config.trainer.strategy == "auto" else ""
        devices += f", each with a shard (trainer.strategy={config.trainer.strategy}{copies})"
    return f"{devices}; {machine.precision} (trainer.precision={config.trainer.precision}{why})"


def reason_in_words(exit_reason: str) -> str:
    """`signal 2` as people know it."""
    word, _, number = exit_reason.partition(" ")
    if word != "signal":
        return exit_reason
    name = signal.Signals(int(number)).name
    return "interrupted by Ctrl-C" if name == "SIGINT" else f"stopped by {name}"


def summarize(
    plan: Plan,
    model: GPTModel,
    metrics: Metrics,
    *,
    steps: int,
    exit_reason: str,
    best_checkpoint: Path | None,
) -> Summary:
    """One flat object; what was never measured, or is beyond all numbers, is null.

    `train_loss` is the one without dropout where the training split was evaluated. Seconds and tokens/s are
    the whole run's and, as `session_...`, those since it was resumed last.
    """
    newest, total, session = metrics.newest, metrics.total(), metrics.session()
    val_loss = newest.get("val/loss")
    summary = {
        "steps": steps,
        "tokens_seen": steps * plan.tokens_per_step,
        "train_loss": newest.get("train/eval_loss", newest.get("train/loss")),
        "val_loss": val_loss,
        "best_val_loss": metrics.best_val_loss,
        "val_perplexity": None if val_loss is None else perplexity(val_loss),
        "tokens_per_sec": total.tokens_per_sec,
        "seconds": round(total.seconds, 2),
        "session_tokens_per_sec": session.tokens_per_sec,
        "session_seconds": round(session.seconds, 2),
        "n_params": model.n_params(),
        "best_checkpoint": None if best_checkpoint is None else str(best_checkpoint),
        "exit_reason": exit_reason,
    }
    beyond = {key for key, value in summary.items() if isinstance(value, float) and not math.isfinite(value)}
    return summary | dict.fromkeys(beyond)


def conclude(
    config: TrainConfig,
    plan: Plan,
    run: Path,
    words: Words,
    loggers: Iterable[Logger],
    summary: Summary,
    first_val_loss: float | None,
    samples: tuple[str, str],
    draws: bool,
) -> None:
    """Write summary, plot and TensorBoard's row of settings; say on one screen how it went and what to run
    next. `samples` are the first and the newest.
    """
    # What ended the run is what its user must hear of, not that the disk had no room for this either.
    with nullcontext() if summary["exit_reason"] == "finished" else watching("summary.json"):
        (run / "summary.json").write_text(json_text(summary, indent=2) + "\n", encoding="utf-8")
    rows: list[dict[str, float]] = []
    with watching("metrics.csv"):
        rows = read_rows(run / "metrics.csv")
    if draws:
        with watching("loss.png"):
            _draw(config, plan, run, rows, summary)
        with watching(PAGE):
            _write_page(config, run, words, rows, summary)
    for logger in loggers:
        if isinstance(logger, TensorBoard):
            finals = {key: summary[key] for key in FINALS}
            finished = summary["exit_reason"] == "finished"
            logger.end(columns(config, words), finals, step=summary["steps"], finished=finished)
            if logger.pictures:
                with watching("loss.png"):
                    picture = read_bytes(run / "loss.png", LARGEST_PICTURE)
                    logger.log_picture("loss", picture, summary["steps"])
            logger.finalize("success")
    with watching("the run's conclusion"):
        _say(config, plan, run, summary, first_val_loss, samples, rows)


def _draw(config: TrainConfig, plan: Plan, run: Path, rows: list[dict[str, float]], summary: Summary) -> None:
    from gpt_pretrain.training.plots import draw_loss  # a broken matplotlib fails here, where it is watched

    if rows:
        title = f"{config.data.source}, {summary['n_params']:,} parameters"
        draw_loss(rows, run / "loss.png", tokens_per_step=plan.tokens_per_step, title=title)


def _write_page(
    config: TrainConfig, run: Path, words: Words, rows: list[dict[str, float]], summary: Summary
) -> None:
    from gpt_pretrain.training.page import write_page

    here = run / ENVIRONMENT
    write_page(
        run,
        rows=rows,
        summary=summary,
        settings=flat(to_plain(config)),
        chosen=columns(config, words),
        environment=read_json(here) if here.is_file() else {},
    )


def _say(
    config: TrainConfig,
    plan: Plan,
    run: Path,
    summary: Summary,
    first_val_loss: float | None,
    samples: tuple[str, str],
    rows: list[dict[str, float]],
) -> None:
    since = f", {summary['session_seconds']:.0f} s of them since it was resumed"
    log.info("")
    log.info(
        "%s after %d steps and %s tokens in %.0f s%s, %s tokens/s",
        *(reason_in_words(summary["exit_reason"]), summary["steps"], f"{summary['tokens_seen']:,}"),
        summary["seconds"],
        since if summary["seconds"] > summary["session_seconds"] else "",
        f"{summary['tokens_per_sec'] or 0:,.0f}",
    )
    if summary["best_val_loss"] is not None:
        first = summary["val_loss"] if first_val_loss is None else first_val_loss
        log.info(
            "validation loss %.3f -> %.3f (best %.3f), perplexity %.1f",
            *(first, summary["val_loss"], summary["best_val_loss"], perplexity(summary["val_loss"])),
        )
    curves = {
        name: [(row["step"], row[key]) for row in rows if key in row]
        for name, key in (("training", "train/loss"), ("validation", "val/loss"))
    }
    width = min(get_console().width, WIDEST)
    for line in draw(curves, width=width, height=CURVE_LINES, x_label="steps"):
        log.info("%s", line)
    for word, sample in zip(("before", "after"), samples, strict=True):
        if sample:
            _say_wrapped(f"{word:<{INDENT}}", sample, width)
    log.info("")
    names = {path.name.partition("tfevents.")[0] for path in run.iterdir() if path.name[0] != "."}
    _say_wrapped(
        f"in {short(run)}: ", ", ".join(sorted(names)).replace("events.out.", "events.out..."), width
    )
    if find_checkpoints(run):
        log.info("next    python generate.py %s", typed("checkpoint", short(run)), extra=COMMAND)
        log.info(
            "        python train.py %s",
            " ".join([typed("resume", short(run)), *_to_go_on(config, plan, summary)]),
            extra=COMMAND,
        )
    if config.logger.tensorboard:
        log.info("watch   tensorboard --logdir %s", shlex.quote(_above(run)), extra=COMMAND)


def _say_wrapped(head: str, text: str, width: int) -> None:
    """A paragraph as wide as the curve, which begins with `head`."""
    if text := " ".join(text.split()):
        for line in folded(text, width, head).splitlines():
            log.info("%s", line)


def _to_go_on(config: TrainConfig, plan: Plan, summary: Summary) -> list[str]:
    """What to change when the run is resumed."""
    match summary["exit_reason"]:
        case "finished":
            return [str(budget.doubled()) for budget in (plan.budget, *plan.others)]
        case "diverged":
            lr = config.optimizer.lr / 10
            rates = {key: getattr(config.schedule, key) for key in ("initial_lr", "min_lr")}
            above = [f"schedule.{key}={rate / 10:g}" for key, rate in rates.items() if (rate or 0) > lr]
            return [f"optimizer.lr={lr:g}", *above]
    return []


def read_summary(checkpoint: Path | None, step: int) -> Summary | None:
    """What a checkpoint's run said of itself at `step`; None where it was killed before it could."""
    if checkpoint is None:
        return None
    try:
        summary = read_json(checkpoint.parent.parent / "summary.json")
    except ArtifactError:
        return None
    return summary if summary.get("steps") == step and "best_val_loss" in summary else None


def _above(run: Path) -> str:
    """The folder that shows this run beside others: the one that commands are typed in, where it is below."""
    return "." if run.absolute().is_relative_to(Path.cwd()) else str(run)


def short(path: Path) -> str:
    """The path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
