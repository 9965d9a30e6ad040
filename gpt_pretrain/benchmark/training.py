"""How fast training is, beside a bare loop, transformers and the machine's own limit.

python -m gpt_pretrain.benchmark                            every size that fits, this program and a bare loop
python -m gpt_pretrain.benchmark model=mini compare=transformers
python -m gpt_pretrain.benchmark model=mini ladder=true     what each switch gains here
"""

import copy
import dataclasses
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

from omegaconf import OmegaConf

from gpt_pretrain.benchmark import decoding
from gpt_pretrain.benchmark.engines import AS_TORCH, Engine, Running, Turn, in_turn, running
from gpt_pretrain.benchmark.ladder import climb
from gpt_pretrain.cli.program import command
from gpt_pretrain.cli.schemas import config_dir
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.config.fields import number, one_of
from gpt_pretrain.errors import InputError
from gpt_pretrain.terminal.text import show

# Sequences at a time and their tokens, on a CPU and on a GPU.
SHAPES = {
    "mini": ((4, 128), (64, 128)),
    "gpt2_small": ((2, 256), (16, 1024)),
    "gpt2_medium": ((2, 256), (16, 1024)),
    "gpt2_large": ((2, 256), (8, 1024)),
    "gpt2_xl": ((2, 256), (4, 1024)),
}
NEW_TOKENS = 32
FREE = 0.7  # of the memory that engines may take: the rest is for what the estimate leaves out

PROGRAM = Engine(name="this program", kind="trainer")
BARE = Engine(name="bare loop, same ways", kind="loop")
FLOAT32 = Engine(name="plain loop, float32", kind="loop", ways=AS_TORCH, autocast=False)


@dataclass(kw_only=True, slots=True)
class BenchmarkConfig(TrainConfig):
    steps: int = number(20, at_least=2)  # optimizer steps a turn, fewer where they would take 20 seconds
    rounds: int = number(5, at_least=1)  # turns of each engine
    compare: str = one_of("none", "transformers")  # also: transformers and a plain loop, as people write it
    allocator: bool = True  # those keep freed memory, too, as this program does
    ladder: bool = False  # instead: each switch's own gain, from the chapter's settings to this program's
    parity: int = number(200, at_least=0)  # steps after which losses are compared with float32's


@command(
    "benchmark",
    BenchmarkConfig,
    examples={
        "python -m gpt_pretrain.benchmark model=mini steps=20 rounds=5": "one size",
        "python -m gpt_pretrain.benchmark model=mini compare=transformers": "beside transformers",
        "python -m gpt_pretrain.benchmark model=mini ladder=true": "what each switch gains",
    },
)
def benchmark(config: BenchmarkConfig, run: Path) -> None:
    """Time training in turn with other ways to do it; without model=, each size that fits."""
    if config.compare == "transformers" and find_spec("transformers") is None:
        raise InputError("compare=transformers needs it: pip install '.[test]'")
    config.trainer = dataclasses.replace(
        config.trainer, max_steps=10**6, eval_every=10**6, eval_batches=1, keep_best=False
    )
    config.logger = dataclasses.replace(config.logger, csv=True, pictures=False)
    sizes = [("", config)] if config.model.emb_dim else list(_sizes(config))
    for name, sized in sizes:
        if config.ladder:
            show(f"{name or 'model'}:")
            climb(sized, config.steps, config.rounds)
        else:
            _Size(sized, name).measure()


def _sizes(config: BenchmarkConfig) -> Iterator[tuple[str, BenchmarkConfig]]:
    import torch

    on_gpu = torch.cuda.is_available() and config.trainer.accelerator != "cpu"
    for name, shapes in SHAPES.items():
        batch_size, context = shapes[on_gpu]
        shape = {**OmegaConf.load(config_dir() / "model" / f"{name}.yaml"), "context_length": context}
        typed = {key: value for key, value in dataclasses.asdict(config.model).items() if value is not None}
        yield (
            name,
            dataclasses.replace(
                config,
                model=dataclasses.replace(config.model, **(shape | typed)),
                data=dataclasses.replace(config.data, batch_size=batch_size),
            ),
        )


class _Size:
    """One model: its engines' turns, and the table of them."""

    def __init__(self, config: BenchmarkConfig, name: str) -> None:
        from gpt_pretrain.training.preflight import preflight

        self.config, self.name = config, name
        self.prepared = preflight(config, Path())
        self.engines = [PROGRAM, BARE]
        if config.compare == "transformers":
            kept = config.allocator
            self.engines += [
                Engine(name="plain loop", kind="loop", ways=AS_TORCH, keeps_memory=kept),
                Engine(name="transformers", kind="transformers", keeps_memory=kept),
            ]

    def measure(self) -> None:
        machine, plan, shape = self.prepared.machine, self.prepared.plan, self.prepared.model
        show(
            f"{self.name or 'model'}: {shape.n_layers} layers, width {shape.emb_dim}, vocabulary "
            f"{shape.vocab_size:,}; {self.config.data.batch_size} x {shape.context_length} tokens, "
            f"{plan.tokens_per_step:,} a step; {machine.accelerator}, {machine.precision}",
            flush=True,
        )
        if (needed := self._bytes()) is not None:
            less = "" if plan.tokens_per_step <= 512 else "; try data.batch_size=2 model.context_length=256"
            show(f"  left out: {len(self.engines)} together need some {needed / 2**30:.0f} GiB{less}")
            return
        with running(self.engines, self.config) as all_:
            turns = in_turn(all_, self.config.steps, self.config.rounds)
            profile = all_[0].turn(max(1, min(3, self.config.steps)), profiled=True)
            for each in all_:
                each.reach(self.config.parity)
        self._show(all_, turns, profile)
        self._decode()

    def _bytes(self) -> float | None:
        """What all engines together would need; None where it is there."""
        from gpt_pretrain.training.memory import memory_bytes, needed_memory

        machine = self.prepared.machine
        one = needed_memory(self.config, machine, self.prepared.model, self.prepared.plan.accumulate)
        there = memory_bytes(machine)
        needed = len(self.engines) * one.total
        return needed if there is not None and needed > FREE * there else None

    def _show(self, all_: list[Running], turns: list[list[float]], profile: Turn) -> None:
        from gpt_pretrain.model import GPTModel

        tokens = self.prepared.plan.tokens_per_step
        flops = tokens * GPTModel(self.prepared.model).flops_per_token()
        measured, told = _peaks(self.prepared.machine.precision, self.prepared.machine.accelerator)
        sheet = f", data sheet {told / 1e12:,.0f}" if told else ""
        show(f"  matrix products at most {measured / 1e9:,.0f} GFLOP/s measured{sheet}")
        show("  engine                   tokens/s  of here    MFU  peak MB  first step s   loss  off float32")
        parity = self._parity(all_)
        for each, seconds in zip(all_, turns, strict=True):
            median = statistics.median(seconds)
            ratio = statistics.median(mine / theirs for mine, theirs in zip(turns[0], seconds, strict=True))
            mfu = flops / median / measured
            show(
                f"  {each.engine.name:23s} {tokens / median:9,.0f}  {ratio:7.2f}  {mfu:5.0%}  "
                f"{each.peak_mb:7,.0f}  {each.first.seconds:12.1f}{parity.get(each.engine.name, '')}"
            )
        beyond = profile.seconds - profile.products
        show(
            f"  a step of this program, profiled: {1000 * profile.seconds:,.1f} ms, products of weights "
            f"{1000 * profile.products:,.1f}, beyond them {1000 * beyond:,.1f}; "
            f"{profile.products / profile.seconds:.0%} of the products' own limit"
        )
        if told:
            show(f"  MFU by the data sheet {flops / statistics.median(turns[0]) / told:.0%}")
        ratios = [mine / bare for mine, bare in zip(turns[0], turns[1], strict=True)]
        show(f"  median trainer/bare {statistics.median(ratios):.3f}", flush=True)

    def _parity(self, all_: list[Running]) -> dict[str, str]:
        """The mean loss of the last ten steps, and how far the losses are from float32's at most."""
        if not self.config.parity:
            return {}
        with running([FLOAT32], self.config) as (reference,):
            reference.reach(self.config.parity)
        n = self.config.parity
        wanted = reference.losses[:n]
        columns = {}
        for each in all_:
            losses = each.losses[:n]
            off = max(abs(a - b) for a, b in zip(losses, wanted, strict=True))
            columns[each.engine.name] = f"  {statistics.mean(losses[-10:]):5.3f}  {off:11.5f}"
        return columns

    def _decode(self) -> None:
        """Greedy generation of one text after 16 tokens, in float32; with compare= beside transformers'."""
        import torch

        from gpt_pretrain.decoding.layout import find_kernel, for_generation
        from gpt_pretrain.model import GPTModel

        torch.manual_seed(0)
        model = GPTModel(self.prepared.model).eval()
        prompts = torch.randint(1, model.config.vocab_size - 1, (1, 16))
        kernel, _ = find_kernel(model, "float32", "auto", math.inf)
        laid_out = for_generation(copy.deepcopy(model), "float32", kernel)
        ours = decoding.run_ours(laid_out, prompts, NEW_TOKENS)
        theirs = ours
        if self.config.compare == "transformers":
            theirs = decoding.run_theirs(decoding.transformers_model(model), prompts, NEW_TOKENS)
        seconds, other = decoding.alternate(ours, theirs, self.config.rounds)
        speed = NEW_TOKENS / statistics.median(seconds)
        read = 4 * speed * (model.n_params() - model.pos_emb.weight.numel())
        bandwidth = decoding.measured_bandwidth()
        share = f"{read / bandwidth:.0%} of the memory's speed"
        line = f"  generates {speed:,.1f} tokens/s on the CPU in float32, {share}"
        if theirs is not ours:
            ratio = statistics.median(b / a for a, b in zip(seconds, other, strict=True))
            line += (
                f"; transformers {NEW_TOKENS / statistics.median(other):,.1f}, here {ratio:.2f} times that"
            )
        show(line, flush=True)


def _peaks(precision: str, accelerator: str) -> tuple[float, float | None]:
    """FLOP/s of matrix products: the best of ten of 2,048 x 2,048, and the data sheet's where it is known."""
    import torch

    from gpt_pretrain.training.callbacks.metrics import peak_flops

    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    n, dtype = (8192, torch.bfloat16) if accelerator == "gpu" else (2048, torch.float32)
    dtype = torch.bfloat16 if precision.startswith("bf16") else dtype
    matrix, best = torch.ones(n, n, device=device, dtype=dtype), float("inf")
    for _ in range(10):
        started = perf_counter()
        product = matrix @ matrix
        product[0, 0].item()  # waits for a GPU
        best = min(best, perf_counter() - started)
    return 2 * n**3 / best, peak_flops(device)


if __name__ == "__main__":
    benchmark()
