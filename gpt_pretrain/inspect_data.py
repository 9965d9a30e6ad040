"""What a run will see of its data, before it runs: python -m gpt_pretrain.inspect_data"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_pretrain.cli.program import command
from gpt_pretrain.config import InspectConfig
from gpt_pretrain.terminal.text import show

if TYPE_CHECKING:
    import numpy as np

    from gpt_pretrain.data.corpus import Corpus, Part
    from gpt_pretrain.tokenizer import Tokenizer

SHOWN = 64  # tokens of a window
BAR = 40  # characters


@command(
    "inspect_data",
    InspectConfig,
    examples={
        "python -m gpt_pretrain.inspect_data data=text_files data.path=books/ model=tiny": "your own text"
    },
)
def inspect_data(config: InspectConfig, run: Path) -> None:
    """Print what a run will see: sources, splits, windows, steps an epoch, lengths, some windows as text."""
    from gpt_pretrain.data.corpus import check_windows, load_corpus
    from gpt_pretrain.data.learned import tokenizer_for

    tokenizer = tokenizer_for(config.data, config.tokenizer)
    corpus = load_corpus(config.data, tokenizer)
    context_length = config.model.context_length
    assert context_length is not None
    check_windows(corpus, config.data, context_length)
    for lines in (
        _sources(corpus, tokenizer),
        _splits(corpus, config, context_length),
        _lengths(corpus),
        _windows(corpus, config, context_length, tokenizer),
    ):
        for line in lines:
            show(line)


def _sources(corpus: "Corpus", tokenizer: "Tokenizer") -> Iterator[str]:
    yield f"tokenizer  {tokenizer.name}, {tokenizer.vocab_size:,} ids"
    for part in corpus.parts:
        n_tokens = len(part.train) + len(part.val)
        yield f"source     {part.name}, content {part.fingerprint}"
        for remark in part.remarks():
            yield f"           {remark}"
        if part.listing.passed_over or len(part.files) > 1:
            yield from (f"           taken       {file}" for file in part.files)
            passed_over = part.listing.passed_over.items()
            yield from (f"           passed over {file}: {reason}" for file, reason in passed_over)
        if part.documents is None:
            yield f"           {n_tokens:,} tokens, read in place"
        else:
            n_documents = sum(len(starts) for starts in part.documents.values())
            yield (
                f"           {n_documents:,} documents, {part.n_characters:,} characters, {n_tokens:,} tokens"
            )
            yield (
                f"           {n_tokens / part.n_bytes:.4f} tokens a byte, "
                f"{part.n_bytes / n_tokens:.2f} bytes a token"
            )


def _splits(corpus: "Corpus", config: InspectConfig, context_length: int) -> Iterator[str]:
    from gpt_pretrain.data.corpus import epoch_windows
    from gpt_pretrain.data.windows import count_windows, window_shares

    data, trained = config.data, corpus.trained
    stride = data.window_stride(context_length)
    n_windows = epoch_windows(corpus, data, context_length)
    n_val = count_windows(len(corpus.val), context_length, context_length)
    how = "validation data from data.val_path" if data.val_path else f"split by {data.split}"
    yield f"splits     {how}: {len(corpus.train):,} training, {len(corpus.val):,} validation tokens"
    yield (
        f"windows    {n_windows:,} training windows of {context_length} tokens every {stride}, "
        f"{n_val:,} validation windows"
    )
    if len(trained) > 1:
        counts = [count_windows(len(part.train), context_length, stride) for part in trained]
        shares = window_shares(n_windows, counts, [part.weight for part in trained])
        for part, count, share in zip(trained, counts, shares, strict=True):
            passes = share / count if count else 0.0
            yield f"           {share / n_windows:6.1%} from {part.name}: {passes:.2f} passes an epoch"
    batch = data.batch_size * config.world_size
    yield (
        f"epoch      {n_windows:,} windows / ({data.batch_size} sequences x {config.world_size} devices) "
        f"= {n_windows / batch:.1f} steps, {n_windows * context_length:,} tokens"
    )


def _lengths(corpus: "Corpus") -> Iterator[str]:
    """How long the documents are, in tokens, by powers of two."""
    import numpy as np

    lengths = [_document_lengths(part) for part in corpus.parts if part.documents is not None]
    if not lengths:
        return
    exponents = np.log2(np.maximum(1, np.concatenate(lengths))).astype(int)
    counts = np.bincount(exponents)
    yield "documents  length in tokens"
    for exponent in range(int(exponents.min()), len(counts)):
        bar = "#" * int(np.ceil(BAR * counts[exponent] / counts.max()))
        yield f"           {2**exponent:>10,} to {2 ** (exponent + 1) - 1:>10,} {counts[exponent]:>9,} {bar}"


def _document_lengths(part: "Part") -> "np.ndarray":
    import numpy as np

    assert part.documents is not None
    totals = {"train": len(part.train), "val": len(part.val)}
    if set(part.documents) == {"train"}:
        totals["train"] += totals["val"]  # split later, by tokens, or not at all
    pieces = []
    for stream, starts in part.documents.items():
        ends = np.append(starts[1:] - 1, totals[stream])  # an end-of-text token stands between documents
        pieces.append(ends[: len(starts)] - starts)
    return np.concatenate(pieces)


def _windows(
    corpus: "Corpus", config: InspectConfig, context_length: int, tokenizer: "Tokenizer"
) -> Iterator[str]:
    """The first windows that training will see, as text, each with the target of its last shown token."""
    from gpt_pretrain.data.corpus import epoch_windows
    from gpt_pretrain.data.order import WindowOrder
    from gpt_pretrain.data.windows import Share, read_windows
    from gpt_pretrain.tokenizer import decode

    n_windows = epoch_windows(corpus, config.data, context_length)
    order = WindowOrder(
        corpus,
        share=Share(batch_size=max(1, min(config.windows, n_windows))),
        n_windows=n_windows,
        context_length=context_length,
        stride=config.data.window_stride(context_length),
        seed=config.seed,
    )
    starts = order.starts(0)[: config.windows]
    windows = read_windows(corpus.train, starts, context_length)
    if config.data.order == "book":
        yield "order      the seed's: the book's is drawn while training, as its model and its dropout are"
    for start, inputs, targets in zip(starts, *windows, strict=True):
        shown = min(SHOWN, context_length)
        yield f"window     at token {start:,}, its first {shown} of {context_length} tokens"
        yield f"  inputs   {decode(tokenizer, inputs[:shown].tolist())!r}"
        yield f"  targets  {decode(tokenizer, targets[:shown].tolist())!r}"


if __name__ == "__main__":
    inspect_data()
