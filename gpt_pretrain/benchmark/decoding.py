"""Decoding speed against transformers' on this machine: python -m gpt_pretrain.benchmark.decoding

Random weights, greedy, prompts of 16 tokens. All engines take turns in one process (A B A B), and each ratio
is the median of the turns' ratios, so that whatever else the machine does falls on all alike.
"""

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_pretrain.cli.program import command
from gpt_pretrain.config import DecodingConfig, ModelSettings, resolve_model
from gpt_pretrain.config.fields import number, one_of, path_to
from gpt_pretrain.errors import InputError
from gpt_pretrain.terminal.text import show

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gpt_pretrain.model import GPTModel

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
# Batch, our weights, transformers' weights, the ratio to reach. transformers' bfloat16 is slow on processors
# without bfloat16 instructions, so its float32 stands beside it.
COMPARISONS: list[tuple[int, str, str, float]] = [
    (1, "float32", "float32", 1.5),
    (1, "bfloat16", "bfloat16", 1.5),
    (1, "bfloat16", "float32", 3.5),
    (1, "int8", "float32", 5.0),
    (16, "bfloat16", "bfloat16", 1.5),
    (16, "bfloat16", "float32", 1.8),
]
Run = Callable[[], object]


@dataclass(kw_only=True, slots=True)
class BenchmarkDecodingConfig:
    model: ModelSettings
    tokens: int = number(64, at_least=1)  # new ones of each row, a turn
    rounds: int = number(5, at_least=1)  # turns of each engine
    kernel: str = one_of("auto", "torch", "c")  # as generate.py's
    checkpoint: str | None = path_to()  # also: the perplexity of each dtype of this model
    debug: bool = False  # tracebacks instead of messages

    def check(self) -> None:
        pass


@command(
    "benchmark_decoding",
    BenchmarkDecodingConfig,
    examples={
        "python -m gpt_pretrain.benchmark.decoding model=gpt2_small rounds=3": "a smaller model, often"
    },
)
def benchmark_decoding(config: BenchmarkDecodingConfig, run: Path) -> None:
    """Generate in turns with transformers, for each width of the weights; prints tokens a second."""
    import torch

    from gpt_pretrain.decoding.layout import find_kernel, for_generation
    from gpt_pretrain.model import GPTModel
    from gpt_pretrain.runs.folders import find_checkpoint

    if config.checkpoint:
        print_perplexities(find_checkpoint(Path(config.checkpoint)), config.kernel)
    torch.manual_seed(0)
    model = GPTModel(resolve_model(config.model, read=None, tokenizer_vocab_size=50257)).eval()
    reference = transformers_model(model)
    theirs = {"float32": reference, "bfloat16": copy.deepcopy(reference).bfloat16()}
    kernel, said = find_kernel(model, "int8", config.kernel, math.inf)
    ours = {dtype: for_generation(copy.deepcopy(model), dtype, kernel) for dtype in BYTES}
    if said:
        show(said)
    bandwidth = measured_bandwidth()
    show(f"memory {bandwidth / 1e9:.1f} GB/s, {torch.get_num_threads()} threads")
    show("batch  new  ours      tokens/s   transformers  tokens/s   ratio  wanted  share of memory bandwidth")
    for batch, dtype, their_dtype, wanted in COMPARISONS:
        prompts = torch.randint(1, model.config.vocab_size - 1, (batch, 16))
        # Without bfloat16 instructions transformers would take minutes a turn.
        n_new = config.tokens if their_dtype == "float32" else max(4, config.tokens // 16)
        a, b = run_ours(ours[dtype], prompts, n_new), run_theirs(theirs[their_dtype], prompts, n_new)
        seconds, their_seconds = alternate(a, b, config.rounds)
        ratio = statistics.median(b / a for a, b in zip(seconds, their_seconds, strict=True))
        speed, their_speed = (batch * n_new / statistics.median(times) for times in (seconds, their_seconds))
        read = BYTES[dtype] * (model.n_params() - model.pos_emb.weight.numel())  # bytes of weights a step
        share = f"{read * speed / batch / bandwidth:.0%}"
        mine = f"{batch:5d}  {n_new:3d}  {dtype:8s}  {speed:8.1f}"
        other = f"{their_dtype:12s}  {their_speed:8.1f}"
        show(f"{mine}   {other}  {ratio:6.2f}  {wanted:6.1f}  {share}", flush=True)


def print_perplexities(checkpoint: Path, wanted: str) -> None:
    """What the narrower weights cost: perplexity of the Python reference's last 6,000 tokens."""
    from pydoc_data.topics import topics

    from gpt_pretrain.decoding.layout import find_kernel, for_generation
    from gpt_pretrain.decoding.scoring import token_logprobs
    from gpt_pretrain.decoding.text import encode
    from gpt_pretrain.loss import perplexity
    from gpt_pretrain.runs.pretrained import load_model

    for dtype in BYTES:
        model, tokenizer = load_model(checkpoint)
        token_ids = encode(tokenizer, "\n".join(topics.values()))[-6000:]
        kernel, _ = find_kernel(model, dtype, wanted, math.inf)
        logprobs = token_logprobs(for_generation(model, dtype, kernel), token_ids)
        show(f"perplexity {dtype:8s} {perplexity(-math.fsum(logprobs) / len(logprobs)):.4f}")


def alternate(a: Run, b: Run, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each turn of `a` and of `b`, after one turn of each that does not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for run, times in zip((a, b), seconds, strict=True):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return seconds[0][1:], seconds[1][1:]


def measured_bandwidth() -> float:
    """Bytes a second of reading 400 MB, the best of fifteen."""
    import torch

    numbers = torch.ones(100_000_000)
    times = []
    for _ in range(15):
        start = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - start)
    return 4 * len(numbers) / min(times)


def transformers_model(model: "GPTModel") -> "torch.nn.Module":
    """transformers' GPT-2 with the same weights. Raises InputError where it is not installed."""
    from gpt_pretrain.weights.huggingface import to_huggingface, to_huggingface_config

    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError as error:
        raise InputError("the comparison needs transformers: pip install '.[test]'") from error

    shape = model.config
    settings = to_huggingface_config(shape, shape.vocab_size - 1)  # its dropout, too
    other = GPT2LMHeadModel(GPT2Config.from_dict(settings)).eval()
    other.load_state_dict(to_huggingface(model.state_dict(), shape), strict=False)
    other.tie_weights()
    return other


def run_ours(model: "GPTModel", prompts: "Tensor", n_new: int) -> Run:
    from gpt_pretrain.decoding.loop import continue_tokens

    config = DecodingConfig(temperature=0.0, max_new_tokens=n_new)
    return lambda: continue_tokens(model, prompts.tolist(), config)


def run_theirs(model: "torch.nn.Module", prompts: "Tensor", n_new: int) -> Run:
    import torch

    settings = {"max_new_tokens": n_new, "min_new_tokens": n_new, "do_sample": False, "pad_token_id": 50256}
    mask = torch.ones_like(prompts)
    return lambda: model.generate(prompts, attention_mask=mask, **settings)  # type: ignore[operator]


if __name__ == "__main__":
    benchmark_decoding()
