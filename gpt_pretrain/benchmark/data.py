"""Tokenizing and loading: speed and memory beside tiktoken alone and nanoGPT's loader, in one run."""

import dataclasses
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_pretrain.cli.program import command
from gpt_pretrain.config import AdamWConfig, BenchmarkDataConfig, DataConfig, ModelSettings, resolve_model
from gpt_pretrain.errors import InputError
from gpt_pretrain.terminal.text import show

if TYPE_CHECKING:
    from gpt_pretrain.data.corpus import Corpus

MIB = 1 << 20
ALONE_MIB = 16  # of the text that tiktoken alone gets in each of its processes, before and after ours
ALONE_TIMES = 8  # over: processors run the first second or two faster than the rest


@command(
    "benchmark_data",
    BenchmarkDataConfig,
    examples={"python -m gpt_pretrain.benchmark.data size_mib=1024": "1 GiB of text"},
)
def benchmark_data(config: BenchmarkDataConfig, run: Path) -> None:
    """Tokenize made-up text and load it in batches: MB/s, memory and tokens/s beside those of others."""
    from gpt_pretrain.tokenizer.patterns import FASTER, GPT2

    if not sys.platform.startswith("linux"):
        raise InputError("this benchmark reads the memory of its processes in /proc, which Linux alone has")
    if config.folder and not Path(config.folder).is_dir():
        raise InputError(f"folder={config.folder}: no such folder")
    n_workers = config.workers or len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        text, cache = Path(folder) / "text.txt", Path(folder) / "cache"
        n_bytes = write_text(text, config.size_mib * MIB)
        show(f"text       {n_bytes / MIB:,.0f} MiB, {n_workers} tokenizing processes", flush=True)
        before = [tiktoken_alone(text, n_workers, pattern) for pattern in (GPT2, FASTER[GPT2])]
        ours, peak = tokenize(text, cache, n_workers)
        after = [tiktoken_alone(text, n_workers, pattern) for pattern in (GPT2, FASTER[GPT2])]
        show(f"prepare    {ours} from start to end")
        for number, what in enumerate(("tiktoken", "the same with our pattern")):
            show(f"           {ours.beside(before[number], after[number])} {what} alone")
        show(f"memory     {peak / MIB:,.0f} MiB at most, all processes together", flush=True)
        _loaders(text, cache, config)


@dataclass(slots=True, frozen=True)
class Speed:
    """MB/s, by the clock and of each second of one core: only the latter does not mind a busy machine."""

    per_second: float
    per_cpu_second: float

    def __str__(self) -> str:
        return f"{self.per_second:.1f} MB/s ({self.per_cpu_second:.1f} MB a second of one core)"

    def beside(self, before: "Speed", after: "Speed") -> str:
        """Shares of another speed, which is the mean of what was measured before and after."""
        other = Speed(
            (before.per_second + after.per_second) / 2, (before.per_cpu_second + after.per_cpu_second) / 2
        )
        return (
            f"{self.per_second / other.per_second:.0%} by the clock and "
            f"{self.per_cpu_second / other.per_cpu_second:.0%} by processor time of the {other} of"
        )


def write_text(file: Path, n_bytes: int) -> int:
    """Paragraphs of the Python reference in ever new order, with numbers between them; returns the size."""
    from gpt_pretrain.data.python_reference import PythonReference

    draw = random.Random(0)
    paragraphs = [p for p in "\n\n".join(PythonReference().topics).split("\n\n") if p.strip()]
    written = 0
    with file.open("wb") as stream:
        while written < n_bytes:
            draw.shuffle(paragraphs)
            block = "\n\n".join(f"{p} {draw.randrange(10**6)}" for p in paragraphs).encode()
            written += stream.write(block[: n_bytes - written])
    return written


def tiktoken_alone(text: Path, n_processes: int, pattern: str) -> Speed:
    """tiktoken and nothing else: each process has its text in memory, cut up, before the clock runs."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(n_processes + 1), context.SimpleQueue()
    processes = [
        context.Process(target=_encode_alone, args=(text, k, pattern, ready, results))
        for k in range(n_processes)
    ]
    for process in processes:
        process.start()
    ready.wait()
    started = time.perf_counter()
    sizes, cpu_seconds = zip(*[results.get() for _ in processes], strict=True)
    seconds = time.perf_counter() - started
    for process in processes:
        process.join()
    return Speed(sum(sizes) / seconds / 1e6, sum(sizes) / sum(cpu_seconds) / 1e6)


def _encode_alone(text: Path, number: int, pattern: str, ready: Any, results: Any) -> None:
    import tiktoken

    from gpt_pretrain.tokenizer import END_OF_TEXT, SEGMENT
    from gpt_pretrain.tokenizer.bpe import gpt2_ranks

    encoding = tiktoken.Encoding(
        "gpt2", pat_str=pattern, mergeable_ranks=gpt2_ranks(), special_tokens={END_OF_TEXT: 50256}
    )
    size = min(ALONE_MIB * MIB, text.stat().st_size)
    with text.open("rb") as stream:
        stream.seek(number * size % max(1, text.stat().st_size - size + 1))
        content = stream.read(size).decode("utf-8", "replace")
    pieces = [content[start : start + SEGMENT] for start in range(0, len(content), SEGMENT)]
    ready.wait()
    started = time.process_time()
    for piece in pieces * ALONE_TIMES:
        encoding.encode_to_numpy(piece, disallowed_special=())
    results.put((size * ALONE_TIMES, time.process_time() - started))


def tokenize(text: Path, cache: Path, n_workers: int) -> tuple[Speed, int]:
    """`gpt_pretrain.prepare` as a user runs it, and the most memory of all its processes, bytes."""
    import resource

    words = [sys.executable, "-m", "gpt_pretrain.prepare", "data=text_files", f"data.path={text}"]
    words += [f"data.cache_dir={cache}", f"data.prepare_workers={n_workers}"]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    started, cpu_before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": paths})
    peak = [0]
    watcher = threading.Thread(target=_watch, args=(process.pid, peak))
    watcher.start()
    if process.wait() != 0:
        raise RuntimeError("gpt_pretrain.prepare failed: see above")
    seconds, cpu_after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    watcher.join()
    cpu_seconds = sum(cpu_after[:2]) - sum(cpu_before[:2])  # user and system, of the workers too
    n_bytes = text.stat().st_size
    return Speed(n_bytes / seconds / 1e6, n_bytes / cpu_seconds / 1e6), peak[0]


def _watch(pid: int, peak: list[int]) -> None:
    while now := resident(pid):
        peak[0] = max(peak[0], now)
        time.sleep(0.1)


def resident(pid: int) -> int:
    """Resident bytes of a process and all below it; pages that several share count for each."""
    try:
        n_bytes = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except (OSError, IndexError):  # it has just ended
        return 0
    return n_bytes + sum(resident(int(child)) for child in children)


def _loaders(text: Path, cache: Path, config: BenchmarkDataConfig) -> None:
    from gpt_pretrain.data.corpus import load_corpus
    from gpt_pretrain.tokenizer import build_tokenizer

    data = DataConfig(source="text_files", path=str(text), cache_dir=str(cache))
    corpus = load_corpus(data, build_tokenizer("gpt2"))
    trains = training_speed(config.model, data.batch_size)
    show(f"model      trains at {trains:,.0f} tokens/s")
    for batch_size, context_length in ((8, 128), (12, 1024)):
        ours, theirs = loader_speeds(corpus, data, batch_size, context_length)
        show(
            f"loader     {ours:,.0f} tokens/s for {batch_size} x {context_length}, nanoGPT's way "
            f"{theirs:,.0f}: {ours / theirs:.2f} times; {ours / trains:,.0f} times what the model trains at"
        )


def loader_speeds(
    corpus: "Corpus", config: DataConfig, batch_size: int, context_length: int, rounds: int = 9
) -> tuple[float, float]:
    """Tokens/s of our loader without worker processes, and of nanoGPT's: medians of alternating rounds."""
    import numpy as np
    import torch

    ours = iter(_loader(corpus, dataclasses.replace(config, batch_size=batch_size), context_length))
    span: Any = corpus.train.parts[0]

    def theirs() -> None:  # nanoGPT's get_batch, train.py at its commit 3adf61e
        tokens = np.memmap(span.file, dtype=np.uint16, mode="r")
        ix = torch.randint(len(tokens) - context_length, (batch_size,))
        torch.stack([torch.from_numpy((tokens[i : i + context_length]).astype(np.int64)) for i in ix])
        torch.stack([torch.from_numpy((tokens[i + 1 : i + 1 + context_length]).astype(np.int64)) for i in ix])

    n_tokens, n_batches = batch_size * context_length, 200
    speeds: list[tuple[float, float]] = [
        (_speed(lambda: next(ours), n_batches, n_tokens), _speed(theirs, n_batches, n_tokens))
        for _ in range(rounds)
    ]
    return statistics.median(s[0] for s in speeds), statistics.median(s[1] for s in speeds)


def _loader(corpus: "Corpus", config: DataConfig, context_length: int) -> Iterable[object]:
    """The training batches of a run that never ends, on one device."""
    from gpt_pretrain.data.windows import count_windows
    from gpt_pretrain.training.datamodule import GPTDataModule
    from gpt_pretrain.training.plan import Budget, Plan

    n_windows = count_windows(len(corpus.train), context_length, context_length)
    plan = Plan(
        world_size=1,
        n_windows=n_windows,
        stride=context_length,
        batch_tokens=config.batch_size * context_length,
        accumulate=1,
        steps=10**6,
        steps_per_epoch=n_windows / config.batch_size,
        budget=Budget("trainer.max_steps", 10**6),
        eval_every=10**6,
        sample_every=10**6,
        checkpoint_every=None,
    )
    data = GPTDataModule(
        corpus,
        config,
        plan,
        context_length=context_length,
        seed=0,
        eval_batches=None,
        eval_train=False,
    )
    return data.train_dataloader()


def _speed(load: Callable[[], object], n_batches: int, n_tokens: int) -> float:
    started = time.perf_counter()
    for _ in range(n_batches):
        load()
    return n_batches * n_tokens / (time.perf_counter() - started)


def training_speed(settings: ModelSettings, batch_size: int, steps: int = 5) -> float:
    """Tokens/s of forward, backward and optimizer, nothing around them."""
    import torch

    from gpt_pretrain.loss import next_token_loss
    from gpt_pretrain.model import GPTModel
    from gpt_pretrain.training.optim import build_optimizer

    shape = resolve_model(settings, read=None, tokenizer_vocab_size=50257)
    model = GPTModel(shape)
    optimizer = build_optimizer(model, AdamWConfig())
    ids = torch.randint(shape.vocab_size, (batch_size, shape.context_length + 1))

    def step() -> None:
        next_token_loss(model(ids[:, :-1]), ids[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    return _speed(step, steps, ids[:, 1:].numel())


if __name__ == "__main__":
    benchmark_data()
