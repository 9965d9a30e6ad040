"""The token cache: a source tokenized once, in a folder that all runs, ranks and trials share.

Its name is a digest of the text, the tokenizer and the settings that matter. One process builds it under a
lock while the others wait; one that is killed leaves what it had committed, and the next goes on from there.
"""

import fcntl
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt_pretrain.config import DataConfig
from gpt_pretrain.data.notes import combined, read_note, using, write_note
from gpt_pretrain.data.reading_bar import Progress
from gpt_pretrain.data.shards import (
    FORMAT,
    INDEX,
    StreamWriter,
    damage,
    stream_documents,
    stream_tokens,
)
from gpt_pretrain.data.sources import Source
from gpt_pretrain.data.splits import TRAIN, VAL, ByCharacters, ByDocuments, Side, batches, whole
from gpt_pretrain.data.tokens import Tokens
from gpt_pretrain.data.workers import encode_batches
from gpt_pretrain.errors import InputError
from gpt_pretrain.tokenizer import SEGMENT, Tokenizer, fingerprint

log = logging.getLogger(__name__)

STREAMS = {TRAIN: "train", VAL: "val"}
CHECKED_BYTES = 64 << 20  # a cache up to this size has its checksums compared whenever it is opened: 0.1 s
PARALLEL_BYTES = 16 << 20  # smaller sources are done before other processes have started
NOTED_BYTES = 4 << 30  # reading this much for the first time takes seconds, so it is said
COMMIT_SECONDS = 5.0  # of work that a killed build may lose


@dataclass(kw_only=True, slots=True, frozen=True)
class Cached:
    """A source's tokens. With split=characters or documents the streams are the two splits."""

    folder: Path
    index: dict[str, Any]
    built: bool  # just now, by this process

    def tokens(self, stream: str) -> Tokens:
        return stream_tokens(self.folder, self.index, stream)

    def documents(self, stream: str) -> np.ndarray:
        return stream_documents(self.folder, self.index, stream)

    def total(self, what: str, *streams: str) -> int:
        """Sum of `tokens`, `characters` or `bytes` over streams, by default over all."""
        return sum(self.index["streams"][name][what] for name in streams or self.index["streams"])


def open_or_build(
    source: Source,
    config: DataConfig,
    tokenizer: Tokenizer,
    cache: Path,
    *,
    split: str,
    checksums: bool = False,
) -> Cached:
    """The source's tokens from the cache, built if they are not there or damaged.

    `split` is characters, documents, or none. Sizes are always compared with the index, checksums too where
    asked for or cheap.
    """
    if source.n_bytes > NOTED_BYTES:
        log.info(
            "data    comparing %s files, %.0f GB, with what is known", source.n_files, source.n_bytes / 1e9
        )
    content = source.fingerprint()
    fraction = None if split == "none" else config.val_fraction
    identity = [FORMAT, SEGMENT, content, fingerprint(tokenizer), split, fraction, config.special_tokens]
    folder = cache / "tokens" / combined(*identity)
    with using(folder.parent):
        index, problem = _read(folder, checksums=checksums)
        if index is not None:
            return Cached(folder=folder, index=index, built=False)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock")):
            index, problem = _read(folder, checksums=checksums)  # another process may have built it meanwhile
            if index is not None:
                return Cached(folder=folder, index=index, built=False)
            if problem:
                log.warning("the token cache %s is damaged (%s): it is built again", folder, problem)
                shutil.rmtree(folder)
            partial = folder.with_suffix(".partial")
            index = _build(partial, source, config, tokenizer, split=split, content=content)
            partial.rename(folder)
    return Cached(folder=folder, index=index, built=True)


def _read(folder: Path, *, checksums: bool) -> tuple[dict[str, Any] | None, str | None]:
    """The index of a sound cache; else None and, where there is a folder, what is wrong with it."""
    if not folder.is_dir():
        return None, None
    index = read_note(folder / INDEX)
    if index is None:
        return None, INDEX
    n_bytes = np.dtype(index["dtype"]).itemsize * sum(s["tokens"] for s in index["streams"].values())
    problem = damage(folder, index, checksums=checksums or n_bytes <= CHECKED_BYTES)
    return (None, problem) if problem else (index, None)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold the lock that `file` stands for; the kernel frees it when the process ends, however that is."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("data    another process tokenizes the same text: waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _build(
    partial: Path, source: Source, config: DataConfig, tokenizer: Tokenizer, *, split: str, content: str
) -> dict[str, Any]:
    """Tokenize the source into `partial`, from where an earlier build of it was interrupted."""
    dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    index = {"format": FORMAT, "dtype": dtype, "content": content, "tokenizer": tokenizer.name}
    progress_file = partial / "progress.json"
    finished, _ = _read(partial, checksums=False)
    if finished is not None:  # killed before it was given its name
        progress_file.unlink(missing_ok=True)
        return finished
    done = read_note(progress_file) or {}
    if partial.is_dir() and (not done or damage(partial, index | done, checksums=False, unfinished=True)):
        shutil.rmtree(partial)  # killed before anything was committed, or damaged since
        done = {}
    partial.mkdir(exist_ok=True)
    skipped, states = done.get("batches", 0), done.get("streams", {})
    writers = {
        stream: StreamWriter(partial, name, dtype, states.get(name))
        for stream, name in STREAMS.items()
        if stream == TRAIN or split != "none"
    }

    def commit(n_batches: int) -> None:
        for writer in writers.values():
            writer.sync()
        streams = {STREAMS[stream]: writer.state for stream, writer in writers.items()}
        write_note(progress_file, {"batches": n_batches, "streams": streams})

    if skipped:
        log.info(
            "data    an interrupted build of %s is there: going on after %d batches", source.name, skipped
        )
    with Progress("tokenizing", source) as progress:
        texts = batches(source.documents(progress.advance), _side(source, config, split), tokenizer.safe)
        for _ in range(skipped):
            next(texts, None)
        n_batches, committed = skipped, time.monotonic()
        options: dict[str, Any] = {"allow_special": config.special_tokens, "dtype": dtype}
        for encoded in encode_batches(texts, tokenizer, _n_workers(source, config), **options):
            for stream, part in encoded.items():
                writers[stream].append(part.tokens, part.documents)
                writers[stream].state["characters"] += part.characters
                writers[stream].state["bytes"] += part.n_bytes
                writers[stream].state["has_text"] |= part.has_text
            n_batches += 1
            if time.monotonic() - committed > COMMIT_SECONDS:
                commit(n_batches)
                committed = time.monotonic()
    commit(n_batches)
    if source.fingerprint() != content:
        shutil.rmtree(partial)
        raise InputError(f"{source.name} changed while it was read: try again")
    index["streams"] = {STREAMS[stream]: writer.state for stream, writer in writers.items()}
    if not any(writer.state["has_text"] for writer in writers.values()):
        shutil.rmtree(partial)
        raise InputError(f"{source.name} holds no {source.holds}: give another data.path")
    write_note(partial / INDEX, index)
    progress_file.unlink()
    return index


def _side(source: Source, config: DataConfig, split: str) -> Side:
    if split == "documents":
        return ByDocuments(config.val_fraction)
    if split == "characters":
        n_characters = 0
        with Progress("reading", source) as progress:
            for document in source.documents(progress.advance):
                n_characters += sum(len(piece) for piece in document)
        return ByCharacters(int((1 - config.val_fraction) * n_characters))
    return whole


def _n_workers(source: Source, config: DataConfig) -> int:
    """Tokenizing processes: none for a small source, which is done sooner than they start."""
    if config.prepare_workers is not None:
        return config.prepare_workers
    if 0 < source.n_bytes < PARALLEL_BYTES:
        return 0
    # A scheduler may give this process only some of the machine's cores; macOS cannot tell which.
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
