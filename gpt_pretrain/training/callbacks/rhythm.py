"""When something is due: every callback counts whole optimizer steps, whatever the accumulation."""

import lightning as L

from gpt_pretrain.training.plan import Plan


def step_ended(plan: Plan, batch_idx: int) -> bool:
    """True after the last micro-step of an optimizer step."""
    return (batch_idx + 1) % plan.accumulate == 0


def is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def evaluates(trainer: L.Trainer, plan: Plan) -> bool:
    """True where validation follows the step just taken: on its beat, and when the run ends here."""
    due = is_due(trainer.global_step, plan.eval_every) or is_last(trainer, plan)
    return due and not is_interrupted(trainer)


def is_last(trainer: L.Trainer, plan: Plan) -> bool:
    return trainer.should_stop or trainer.global_step >= plan.steps


def is_interrupted(trainer: L.Trainer) -> bool:
    """True where a signal ends the run: what is left to do is to save, and soon."""
    return trainer.should_stop and trainer.limit_val_batches == 0
