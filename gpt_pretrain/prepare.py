"""Tokenize a source into the cache before training, on a login node say: python -m gpt_pretrain.prepare"""

import time
from pathlib import Path

from gpt_pretrain.cli.program import command
from gpt_pretrain.config import PrepareConfig
from gpt_pretrain.terminal.text import show


@command(
    "prepare",
    PrepareConfig,
    examples={"python -m gpt_pretrain.prepare data=text_files data.path='books/*.txt'": "your own text"},
)
def prepare(config: PrepareConfig, run: Path) -> None:
    """Tokenize a source into the cache that training reads, or compare what is there with its checksums."""
    from gpt_pretrain.data.corpus import load_corpus
    from gpt_pretrain.data.learned import tokenizer_for

    started = time.monotonic()
    corpus = load_corpus(config.data, tokenizer_for(config.data, config.tokenizer), checksums=True)
    seconds = time.monotonic() - started
    for part in corpus.parts:
        n_tokens = len(part.train) + len(part.val)
        if part.folder is None:
            show(f"{part.name}: {n_tokens:,} tokens, read in place")
            continue
        what = "tokenized" if part.built else "was tokenized already, checksums hold"
        show(f"{part.name}: {what}: {part.n_characters:,} characters, {n_tokens:,} tokens")
        show(f"  in {part.folder}")
    for remark in corpus.remarks():
        show(remark)
    n_bytes = sum(part.n_bytes for part in corpus.parts if part.built)
    rate = f", {n_bytes / 1e6 / seconds:.1f} MB/s" if n_bytes else ""
    show(f"{len(corpus.train):,} training and {len(corpus.val):,} validation tokens, {seconds:.1f} s{rate}")


if __name__ == "__main__":
    prepare()
