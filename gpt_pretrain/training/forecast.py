"""plan=true: a run on paper. What it needs, exchanges and takes; refuses what cannot fit."""

from gpt_pretrain.config import TrainConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.terminal.text import show
from gpt_pretrain.training.estimate import (
    DEVICES,
    GIB,
    SIZES,
    UTILIZATION,
    Device,
    Memory,
    exchanged_bytes,
    n_params,
    step_seconds,
)
from gpt_pretrain.training.machine import Machine
from gpt_pretrain.training.memory import needed_memory
from gpt_pretrain.training.plan import Plan
from gpt_pretrain.training.preflight import Prepared, flops_per_token


def forecast(config: TrainConfig, prepared: Prepared) -> None:
    """Print the plan. Raises InputError where a device's memory is too small for it."""
    plan, machine, model = prepared.plan, prepared.machine, prepared.model
    parameters, _ = n_params(model)
    memory = needed_memory(config, machine, model, plan.accumulate)
    flops = flops_per_token(model)
    show(f"model      {parameters:,} parameters, {flops / 1e9:.3g} GFLOP a token, forward and backward")
    show(
        f"batch      {config.data.batch_size} sequences x {model.context_length} tokens x "
        f"{plan.world_size} devices x {plan.accumulate} micro-steps = {plan.tokens_per_step:,} tokens a step"
    )
    show(
        f"length     {plan.steps:,} steps, {plan.steps * plan.tokens_per_step:,} tokens, "
        f"{plan.steps / plan.steps_per_epoch:.3g} epochs by {plan.budget}; "
        f"{plan.steps * plan.tokens_per_step * flops:.3g} FLOP in all"
    )
    show(
        f"schedule   {config.schedule.name}, peak {config.optimizer.lr:g}, {config.optimizer.name}; "
        f"evaluation every {plan.eval_every} steps"
    )
    parts = ", ".join(f"{name} {_gib(size)}" for name, size in memory.parts().items())
    show(f"memory     {_gib(memory.total)} a device ({machine.strategy}, {machine.precision}): {parts}")
    exchanged = exchanged_bytes(
        parameters,
        plan.world_size,
        sharded=machine.strategy == "fsdp",
        precision=machine.precision,
        micro_steps=plan.accumulate,
    )
    show(f"exchange   {_gib(exchanged)} sent by each device a step; gradients in its last micro-step")
    if config.plan_device is not None:
        device = DEVICES[config.plan_device]
        _show_time(config, plan, machine, device, flops, exchanged)
        _show_projection(config, plan, machine, device, flops, parameters)
        _check_fits(config, memory, device)


def _show_time(
    config: TrainConfig, plan: Plan, machine: Machine, device: Device, flops: int, exchanged: float
) -> None:
    tokens = plan.tokens_per_step // plan.world_size
    compute, exchange = step_seconds(
        device,
        flops=flops * tokens,
        exchanged=exchanged,
        devices=plan.world_size,
        precision=machine.precision,
        tokens_per_sec=config.plan_tokens_per_sec,
        tokens=tokens,
    )
    measured = config.plan_tokens_per_sec is not None
    basis = "the measured speed of one" if measured else f"{UTILIZATION:.0%} of the peak"
    total = (compute + exchange) * plan.steps
    show(
        f"time       {compute + exchange:.3g} s a step on {plan.world_size} {config.plan_device} "
        f"({compute:.3g} s at {basis}, {exchange:.3g} s of exchange, none hidden): {_hours(total)} in all"
    )


def _show_projection(
    config: TrainConfig, plan: Plan, machine: Machine, device: Device, flops: int, parameters: int
) -> None:
    """The same work of a device, on more and more of them."""
    tokens = plan.tokens_per_step // plan.world_size
    show(f"projection (not measured): {tokens:,} tokens a step and device, whatever their number")
    show("  devices    tokens/s  efficiency")
    for n in SIZES:
        exchanged = exchanged_bytes(
            parameters,
            n,
            sharded=machine.strategy == "fsdp",
            precision=machine.precision,
            micro_steps=plan.accumulate,
        )
        compute, exchange = step_seconds(
            device,
            flops=flops * tokens,
            exchanged=exchanged,
            devices=n,
            precision=machine.precision,
            tokens_per_sec=config.plan_tokens_per_sec,
            tokens=tokens,
        )
        show(f"  {n:7,} {n * tokens / (compute + exchange):11,.0f}  {compute / (compute + exchange):9.0%}")


def _check_fits(config: TrainConfig, memory: Memory, device: Device) -> None:
    if memory.total <= device.memory:
        return
    remedies = []
    if config.trainer.strategy != "fsdp":
        remedies.append("trainer=fsdp with more devices")
    if not config.trainer.activation_checkpointing:
        remedies.append("trainer.activation_checkpointing=true")
    if config.data.batch_size > 1 and config.trainer.strategy != "fsdp":  # which adds gradients up whole
        remedies.append("a smaller data.batch_size with trainer.global_batch_tokens")
    raise InputError(
        f"{_gib(memory.total)} a device do not fit into the {_gib(device.memory)} of {config.plan_device}: "
        f"{', '.join(remedies) or 'more devices'}"
    )


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / 2**20:.1f} MiB"


def _hours(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
