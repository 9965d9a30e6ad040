"""What copies of a model on several processes cost: two, and one alone, of one thread each, in turn.

python -m gpt_pretrain.benchmark.ranks

Two processes have as many sequences each as the one, so that a step of theirs is a step of its own and the
exchange of gradients, which is measured beside it: gloo, on this machine.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from gpt_pretrain.cli.program import command
from gpt_pretrain.cli.schemas import options
from gpt_pretrain.config import TrainConfig, nearest
from gpt_pretrain.config.fields import number
from gpt_pretrain.errors import InputError, UserFacingError
from gpt_pretrain.terminal.text import show

TRAINING = [
    *("tokenizer=bytes", "trainer=cpu", "trainer.precision=32-true", "trainer.keep_best=false"),
    *("trainer.eval_batches=1", "logger=csv", "logger.pictures=false", "decoding.max_new_tokens=1"),
]
EXCHANGES = 20  # of which the median counts


@dataclass(kw_only=True, slots=True)
class BenchmarkRanksConfig:
    size: str = "mini"  # of the model, as model= takes it
    steps: int = number(40, at_least=2)  # optimizer steps, of which the first is not timed
    rounds: int = number(3, at_least=1)  # each times one process, then two, then the exchange alone
    debug: bool = False  # tracebacks instead of messages

    def check(self) -> None:
        pass


@command(
    "benchmark_ranks",
    BenchmarkRanksConfig,
    examples={"python -m gpt_pretrain.benchmark.ranks size=tiny": "with a smaller model"},
)
def benchmark_ranks(config: BenchmarkRanksConfig, run: Path) -> None:
    """Time training on one process and on two, in turn, and the exchange of gradients alone."""
    sizes = list(options("model", TrainConfig))
    if config.size not in sizes:
        told = f"no such model{nearest(config.size, sizes)} (there are {', '.join(sizes)})"
        raise InputError(f"size={config.size}: {told}")
    show("round   one s/step   two s/step   all-reduce s   two/(one + all-reduce)")
    ratios = []
    for round_ in range(1, config.rounds + 1):
        one, n_params = _trained(config, 1)
        two, _ = _trained(config, 2)
        exchange = _exchanged(n_params)
        ratios.append(two / (one + exchange))
        show(f"{round_:5}   {one:10.4f}   {two:10.4f}   {exchange:12.4f}   {ratios[-1]:22.3f}")
    show(f"median two/(one + all-reduce) {statistics.median(ratios):.3f}")


def _trained(config: BenchmarkRanksConfig, processes: int) -> tuple[float, int]:
    """Seconds a step of the whole program, as its own throughput says, and the number of parameters."""
    from gpt_pretrain.training.metrics_csv import read_rows

    rhythm = [f"trainer.{name}={config.steps}" for name in ("max_steps", "log_every", "eval_every")]
    words = [*TRAINING, *rhythm, f"model={config.size}", f"trainer.devices={processes}", "hydra.run.dir=run"]
    package = str(Path(__file__).parent.parent.parent)
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "gpt_pretrain", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            error = UserFacingError(done.stderr.strip()[-500:].removeprefix("error: "))
            error.exit_code = done.returncode
            raise error
        summary = json.loads(Path(folder, "run", "summary.json").read_text(encoding="utf-8"))
        newest = read_rows(Path(folder, "run", "metrics.csv"))[-1]
    return summary["tokens_seen"] / summary["steps"] / newest["tokens_per_sec"], summary["n_params"]


def _exchanged(n_params: int) -> float:
    """Seconds that two processes take to add up float32 gradients of that many parameters."""
    import torch.multiprocessing as mp

    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_exchange, (folder, n_params), nprocs=2)
        return float(Path(folder, "seconds").read_text(encoding="utf-8"))


def _exchange(rank: int, folder: str, n_params: int) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=Path(folder, "meet").as_uri(), rank=rank, world_size=2)
    gradients, seconds = torch.ones(n_params), []
    for _ in range(EXCHANGES):
        dist.barrier()
        began = perf_counter()
        dist.all_reduce(gradients)
        seconds.append(perf_counter() - began)
    if rank == 0:
        Path(folder, "seconds").write_text(str(statistics.median(seconds)), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    benchmark_ranks()
