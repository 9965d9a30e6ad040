"""From the chapter's settings to this program's, a switch at a time: what each gains on this machine."""

import dataclasses
import statistics
from itertools import pairwise
from pathlib import Path

from gpt_pretrain.benchmark.engines import AS_TORCH, Engine, in_turn, running
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.terminal.text import show
from gpt_pretrain.training.machine import lacks_for_compiling, multiplies_tf32

CHAPTER = Engine(
    name="the chapter: float32, attention by products, dropout 0.1, AdamW a tensor at a time",
    kind="loop",
    ways=AS_TORCH | {"attention": "products"},
    keeps_memory=False,
    fused=False,
    autocast=False,
    drop_rate=0.1,
)


def rungs(precision: str, accelerator: str) -> list[Engine]:
    """Each engine is the one before with one thing changed, which its name says."""
    found, on_gpu, narrow = [CHAPTER], accelerator == "gpu", precision.startswith("bf16")

    def then(name: str, **changed: object) -> None:
        found.append(dataclasses.replace(found[-1], name=name, **changed))  # type: ignore[arg-type]

    def ways(**changed: object) -> dict[str, object]:
        return {**found[-1].ways, **changed}

    then("freed memory is kept", keeps_memory=True)
    if on_gpu and multiplies_tf32():
        then("products in TF32", ways=ways(tf32=True))
    then("AdamW in one kernel", fused=True)
    if not on_gpu:
        then("dropout from random bits", ways=ways(dropout_kernel="bits"))
    then("no dropout", drop_rate=0.0)
    then("attention by torch's function", ways=ways(attention="sdpa"))
    if narrow:
        then("bfloat16 over float32 weights", autocast=True)
    if on_gpu or not narrow:
        then("a padded vocabulary", ways=ways(pad_vocabulary="true"))
    if on_gpu and narrow:
        then("residual stream in bfloat16", ways=ways(residual="bfloat16"))
    if not on_gpu:
        then("the loss written over its logits", ways=ways(loss="in_place"))
    then("the whole program", kind="trainer", ways={})
    then("twice the batch", batch_times=2)
    if lacks_for_compiling(accelerator) is None:
        then("compiled, trainer.compile=true", ways={"compile": "true"})
    return found


def climb(config: TrainConfig, steps: int, rounds: int) -> None:
    """Time each rung in turn with the one before it; prints tokens a second and the gain."""
    from gpt_pretrain.training.preflight import preflight

    prepared = preflight(config, Path())
    found = rungs(prepared.machine.precision, prepared.machine.accelerator)
    show("tokens/s    gain   by")
    tokens = prepared.plan.tokens_per_step
    for before, after in pairwise(found):
        with running([before, after], config) as both:
            seconds, other = in_turn(both, steps, rounds)
        larger = after.batch_times / before.batch_times
        if before is CHAPTER:
            show(f"{tokens / statistics.median(seconds):8,.0f}          {CHAPTER.name}")
        gain = statistics.median(larger * a / b for a, b in zip(seconds, other, strict=True))
        speed = tokens * after.batch_times / statistics.median(other)
        show(f"{speed:8,.0f}  {gain:5.2f}   {after.name}", flush=True)
