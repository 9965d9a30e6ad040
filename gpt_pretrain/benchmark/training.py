"""What Lightning's loop costs: the same model and batches through our trainer and a bare PyTorch loop.

python -m gpt_pretrain.benchmark.training steps=20 rounds=5
"""

import dataclasses
import logging
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from gpt_pretrain.cli.program import command
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.config.fields import number
from gpt_pretrain.terminal.text import show

if TYPE_CHECKING:
    from gpt_pretrain.training.preflight import Prepared


@dataclass(kw_only=True, slots=True)
class BenchmarkConfig(TrainConfig):
    steps: int = number(20, at_least=2)  # optimizer steps a round
    rounds: int = number(5, at_least=1)  # each times the bare loop, then the trainer


@command(
    "benchmark",
    BenchmarkConfig,
    examples={"python -m gpt_pretrain.benchmark model=mini steps=20 rounds=5": "the median of five rounds"},
)
def benchmark(config: BenchmarkConfig, run: Path) -> None:
    """Time the trainer against a bare PyTorch loop on the same batches, in turn; prints seconds a step."""
    import torch

    from gpt_pretrain.training.preflight import preflight
    from gpt_pretrain.training.train import keep_freed_memory

    logging.disable(logging.INFO)
    keep_freed_memory()
    config.trainer = dataclasses.replace(
        config.trainer,
        max_steps=config.steps,
        log_every=config.steps,
        eval_every=config.steps,
        eval_batches=1,
        keep_best=False,
        precision="32-true",  # the bare loop's
    )
    config.logger = dataclasses.replace(config.logger, csv=True)  # where the last interval's speed stands
    prepared = preflight(config, run)
    tokens_per_step = prepared.plan.tokens_per_step
    show(
        f"{torch.get_num_threads()} threads, {config.steps} steps a round, {tokens_per_step:,} tokens a step"
    )
    show("round   bare s/step   trainer s/step   trainer/bare")
    ratios = []
    for round_ in range(config.rounds + 1):
        bare, trainer = _bare_loop(config, prepared), _trainer(config, prepared)
        if round_ > 0:  # the first one warms up
            ratios.append(trainer / bare)
            show(f"{round_:5}   {bare:11.4f}   {trainer:14.4f}   {ratios[-1]:12.3f}")
    show(f"median trainer/bare {statistics.median(ratios):.3f}")


def _bare_loop(config: BenchmarkConfig, prepared: "Prepared") -> float:
    """Seconds a step, the first left out, of the least code that trains: forward, backward, clip, step."""
    import torch

    from gpt_pretrain.loss import next_token_loss
    from gpt_pretrain.model import GPTModel
    from gpt_pretrain.training.datamodule import TrainBatches
    from gpt_pretrain.training.optim import build_optimizer

    model = GPTModel(prepared.model)
    optimizer = build_optimizer(model, config.optimizer)
    batches = TrainBatches(
        prepared.corpus,
        config.data,
        prepared.plan,
        context_length=prepared.model.context_length,
        rank=0,
        seed=config.seed,
    )
    started = 0.0
    for k in range(len(batches)):
        if k == prepared.plan.accumulate:
            started = perf_counter()
        batch = batches[k]
        loss = next_token_loss(model(batch["inputs"]), batch["targets"]) / prepared.plan.accumulate
        loss.backward()
        if (k + 1) % prepared.plan.accumulate == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.trainer.grad_clip or float("inf"))
            optimizer.step()
            optimizer.zero_grad()
    return (perf_counter() - started) / (config.steps - 1)


def _trainer(config: BenchmarkConfig, prepared: "Prepared") -> float:
    """Seconds a step of the whole program, as its own throughput says: the first step left out too."""
    from gpt_pretrain.training.metrics_csv import read_rows
    from gpt_pretrain.training.train import train

    with tempfile.TemporaryDirectory() as folder:
        train(config, prepared, Path(folder))
        newest = read_rows(Path(folder) / "metrics.csv")[-1]
    return prepared.plan.tokens_per_step / newest["tokens_per_sec"]


if __name__ == "__main__":
    benchmark()
