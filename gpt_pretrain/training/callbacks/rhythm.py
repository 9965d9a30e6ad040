"""When something is due, in optimizer steps, whatever the accumulation."""

from gpt_pretrain.training.plan import Plan


def step_ended(plan: Plan, batch_idx: int) -> bool:
    """True after the last micro-step of an optimizer step."""
    return (batch_idx + 1) % plan.accumulate == 0


def is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
