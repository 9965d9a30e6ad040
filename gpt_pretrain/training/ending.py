"""How a run ends: its exit reason, its summary and its conclusion, whatever ended it."""

import logging
from pathlib import Path
from traceback import walk_tb
from types import TracebackType

import lightning as L

from gpt_pretrain.config import TrainConfig
from gpt_pretrain.config.words import typed
from gpt_pretrain.errors import ArtifactError, DivergedError, StoppedError
from gpt_pretrain.training.callbacks.checkpoints import Checkpoints
from gpt_pretrain.training.callbacks.metrics import Metrics
from gpt_pretrain.training.callbacks.samples import Samples
from gpt_pretrain.training.callbacks.stop import Stop
from gpt_pretrain.training.columns import Words
from gpt_pretrain.training.divergence import RolledBackError
from gpt_pretrain.training.module import GPTModule
from gpt_pretrain.training.preflight import Prepared
from gpt_pretrain.training.report import Summary, conclude, reason_in_words, short, summarize

log = logging.getLogger(__name__)


# What a state that is none raises where it is restored: also what a callback of the user's kept.
_MISFITS = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError)


class Ending:
    """A context around the fit. After it `summary` holds what summary.json does.

    Leaving it raises StoppedError where a signal stopped the run, which Lightning takes for a good end.
    """

    def __init__(
        self,
        config: TrainConfig,
        prepared: Prepared,
        run: Path,
        words: Words,
        trainer: L.Trainer,
        module: GPTModule,
        stop: Stop,
        metrics: Metrics,
        samples: Samples,
        checkpoints: Checkpoints,
    ) -> None:
        self.config, self.prepared, self.run, self.words = config, prepared, run, words
        self.trainer, self.module = trainer, module
        self.stop, self.metrics, self.samples, self.checkpoints = stop, metrics, samples, checkpoints
        self.summary: Summary = {}

    def __enter__(self) -> "Ending":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.checkpoints.finish(self.trainer)
        if isinstance(error, SystemExit):  # Lightning's answer to an interruption before the first step
            error = error.__context__ or error
        if isinstance(error, KeyboardInterrupt):  # there is nothing to conclude
            raise error from None
        if isinstance(error, RolledBackError):  # nor is it the end
            return
        if self.prepared.resume_from and not self.stop.started and error is not None:
            self._refuse_misfit(error)
        self.summary = summarize(
            self.prepared.plan,
            self.module.model,
            self.metrics,
            steps=self.trainer.global_step,
            exit_reason=self._reason(error),
            best_checkpoint=self.checkpoints.best_checkpoint(),
        )
        if self.trainer.is_global_zero:
            plan, loggers = self.prepared.plan, self.trainer.loggers
            conclude(
                self.config,
                plan,
                self.run,
                self.words,
                loggers,
                self.summary,
                self.metrics.first_val_loss,
                (self.samples.first, self.samples.newest),
                self.prepared.draws,
            )
        if kind is SystemExit and error is not None:
            raise error from None
        if error is None and self.stop.interrupted:
            assert self.stop.signal_number is not None
            raise StoppedError(
                self.stop.signal_number,
                f"{reason_in_words(self.summary['exit_reason'])} at step {self.summary['steps']}, saved: "
                f"go on with {typed('resume', short(self.run))}",
            )

    def _refuse_misfit(self, error: BaseException) -> None:
        """Raise ArtifactError where a checkpoint's state could not be restored: the run's summary stays."""
        if isinstance(error, ArtifactError):
            raise error
        if isinstance(error, _MISFITS) or (isinstance(error, RuntimeError) and _in_restoring(error)):
            raise ArtifactError(
                f"{self.prepared.resume_from} holds a training state that does not fit ({error!r:.80}): "
                "go on from an earlier checkpoint, or begin a new run from its weights"
            ) from error

    def _reason(self, error: BaseException | None) -> str:
        match error:
            case None:  # a signal that came after the last step has found nothing to stop
                if self.stop.interrupted:
                    return f"signal {self.stop.signal_number}"
                return self.stop.given_up or "finished"
            case DivergedError():
                return "diverged"
        return "failed"


def _in_restoring(error: RuntimeError) -> bool:
    """Whether a state is what caused it, and not the machine that it is put on."""
    frames = [frame.f_code.co_name for frame, _ in walk_tb(error.__traceback__)]
    return "load_state_dict" in frames and "memory" not in str(error)
