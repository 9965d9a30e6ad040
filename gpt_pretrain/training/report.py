"""What a run says of itself: its plan before, its summary, plot and next commands after."""

import json
import logging
import math
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from gpt_pretrain.config import TrainConfig, to_plain
from gpt_pretrain.config.words import typed
from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.loss import perplexity
from gpt_pretrain.model import GPTModel
from gpt_pretrain.runs.folders import find_checkpoints
from gpt_pretrain.runs.foreign import read_json
from gpt_pretrain.terminal.watching import watching
from gpt_pretrain.tokenizer import decode
from gpt_pretrain.training.callbacks.metrics import Metrics
from gpt_pretrain.training.loggers import TensorBoard
from gpt_pretrain.training.metrics_csv import read_rows
from gpt_pretrain.training.plan import Plan
from gpt_pretrain.training.preflight import Prepared

log = logging.getLogger(__name__)

Summary = dict[str, Any]


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
        "        %s tokens a step, evaluation every %d steps, on %d %s in %s",
        *(f"{plan.tokens_per_step:,}", plan.eval_every, machine.devices, machine.accelerator),
        machine.precision,
    )
    if machine.hint:
        log.info("        %s", machine.hint)
    resumed = f", resumed at step {prepared.first_step}" if prepared.first_step else ""
    log.info("run     %s%s", short(run), resumed)
    for change in prepared.changes:
        log.info("        changed: %s", change)


def summarize(
    plan: Plan,
    model: GPTModel,
    metrics: Metrics,
    *,
    steps: int,
    exit_reason: str,
    best_checkpoint: Path | None,
) -> Summary:
    """One flat object; what was never measured is null.

    `train_loss` is the one without dropout where the training split was evaluated. Seconds and tokens/s are
    the whole run's and, as `session_...`, those since it was resumed last.
    """
    newest, total, session = metrics.newest, metrics.total(), metrics.session()
    val_loss = newest.get("val/loss")
    return {
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


def conclude(
    config: TrainConfig,
    plan: Plan,
    run: Path,
    loggers: Iterable[Logger],
    summary: Summary,
    first_val_loss: float | None,
    sample: str,
) -> None:
    """Write summary, plot and hyper-parameters; say on one screen how it went and what to run next."""
    # What ended the run is what its user must hear of, not that the disk had no room for this either.
    with nullcontext() if summary["exit_reason"] == "finished" else watching("summary.json"):
        (run / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    rows: list[dict[str, float]] = []
    with watching("metrics.csv"):
        rows = read_rows(run / "metrics.csv")
    with watching("loss.png"):
        _draw(config, plan, run, rows, summary)
    for logger in loggers:
        if isinstance(logger, TensorBoard):
            final = {f"hparam/{key}": _or_nan(summary[key]) for key in ("val_loss", "best_val_loss")}
            settings = {key: value for key, value in _flat(to_plain(config)).items() if value is not None}
            logger.log_hyperparams(settings, final)
            logger.finalize("success")
    with watching("the run's conclusion"):
        _say(config, plan, run, summary, first_val_loss, sample)


def _draw(config: TrainConfig, plan: Plan, run: Path, rows: list[dict[str, float]], summary: Summary) -> None:
    from gpt_pretrain.training.plots import draw_loss  # a broken matplotlib fails here, where it is watched

    if rows:
        title = f"{config.data.source}, {summary['n_params']:,} parameters"
        draw_loss(rows, run / "loss.png", tokens_per_step=plan.tokens_per_step, title=title)


def _say(
    config: TrainConfig,
    plan: Plan,
    run: Path,
    summary: Summary,
    first_val_loss: float | None,
    sample: str,
) -> None:
    since = f", {summary['session_seconds']:.0f} s of them since it was resumed"
    log.info("")
    log.info(
        "%s after %d steps and %s tokens in %.0f s%s, %s tokens/s",
        *(summary["exit_reason"], summary["steps"], f"{summary['tokens_seen']:,}", summary["seconds"]),
        since if summary["seconds"] > summary["session_seconds"] else "",
        f"{summary['tokens_per_sec'] or 0:,.0f}",
    )
    if summary["best_val_loss"] is not None:
        first = summary["val_loss"] if first_val_loss is None else first_val_loss
        log.info(
            "validation loss %.3f -> %.3f (best %.3f), perplexity %.1f",
            *(first, summary["val_loss"], summary["best_val_loss"], summary["val_perplexity"]),
        )
    if sample:
        log.info("it writes: %s", " ".join(sample.split()))
    log.info("")
    log.info(
        "in %s: %s", short(run), ", ".join(sorted(path.name for path in run.iterdir() if path.name[0] != "."))
    )
    if find_checkpoints(run):
        log.info("next    python generate.py %s", typed("checkpoint", short(run)))
        log.info(
            "        python train.py %s",
            " ".join([typed("resume", short(run)), *_to_go_on(config, plan, summary)]),
        )


def _to_go_on(config: TrainConfig, plan: Plan, summary: Summary) -> list[str]:
    """What to change when the run is resumed."""
    match summary["exit_reason"]:
        case "finished":
            return [str(plan.budget.doubled())]
        case "diverged":
            return [f"optimizer.lr={config.optimizer.lr / 10:g}"]
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


def short(path: Path) -> str:
    """The path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
