"""What a trial costs beside its training: this sweeper and Hydra's basic one, in turn.

python -m gpt_pretrain.benchmark.sweeping trials=8

Each sweeps once over one trial and once over more: starting the program and importing libraries, paid once,
drops out of the difference.
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
from gpt_pretrain.config.fields import number
from gpt_pretrain.errors import UserFacingError
from gpt_pretrain.terminal.text import show

TRIAL = [
    *("model=tiny", "tokenizer=bytes", "trainer=cpu", "trainer.max_steps=60", "trainer.eval_batches=10"),
    "decoding.max_new_tokens=8",
]
SWEEPERS = {"this program's": "gpt_pretrain", "Hydra's basic": "basic"}


@dataclass(kw_only=True, slots=True)
class BenchmarkSweepingConfig:
    trials: int = number(8, at_least=1)  # more than the one that both sweeps have
    rounds: int = number(3, at_least=1)  # turns of each sweeper
    debug: bool = False  # tracebacks instead of messages

    def check(self) -> None:
        pass


@command(
    "benchmark_sweeping",
    BenchmarkSweepingConfig,
    examples={"python -m gpt_pretrain.benchmark.sweeping trials=8": "eight trials of each"},
)
def benchmark_sweeping(config: BenchmarkSweepingConfig, run: Path) -> None:
    """Time sweeps of short trials; prints the seconds of a trial that are none of its training."""
    show("seconds a trial   round   whole   training   beside it")
    beside: dict[str, list[float]] = {name: [] for name in SWEEPERS}
    for round_ in range(1, config.rounds + 1):
        for name, sweeper in SWEEPERS.items():
            one, _ = _timed(sweeper, 1)
            all_, training = _timed(sweeper, 1 + config.trials)
            whole = (all_ - one) / config.trials
            beside[name].append(whole - training)
            show(f"{name:15}   {round_:5}   {whole:5.2f}   {training:8.2f}   {whole - training:9.2f}")
    for name, seconds in beside.items():
        show(f"{name}: median {statistics.median(seconds):.2f} s a trial beside training")


def _timed(sweeper: str, trials: int) -> tuple[float, float]:
    """Seconds of a sweep, and of one trial's training as its summary has them: the mean without the first."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*TRIAL, f"seed=range(0,{trials})", f"hydra/sweeper={sweeper}", "hydra.sweep.dir=sweep"]
        package = str(Path(__file__).parent.parent.parent)
        paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        began = perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "gpt_pretrain", "-m", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
        )
        seconds = perf_counter() - began
        if done.returncode:
            raise UserFacingError(f"a sweep failed: {done.stderr.strip()[-500:]}")
        files = Path(folder, "sweep").glob("*/summary.json")
        trained = [json.loads(file.read_text(encoding="utf-8"))["seconds"] for file in sorted(files)]
    return seconds, statistics.fmean(trained[1:] or trained)


if __name__ == "__main__":
    benchmark_sweeping()
