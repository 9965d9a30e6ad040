"""The token cache: a source tokenized once, in a folder that all runs, ranks and trials share.

Its name is a digest of the text, the tokenizer and the settings that matter. One process builds it under a
lock while the others wait; one that is killed leaves what it had committed, and the next goes on from there.
"""

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
from filelock import FileLock, Timeout

from gpt_pretrain.config import DataConfig
from gpt_pretrain.data.marks import CountedMarks, cut_at, ending_marks, ordinary_marks
from gpt_pretrain.data.notes import combined, read_note, using, write_note
from gpt_pretrain.data.reading_bar import ReadingBar
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
from gpt_pretrain.data.workers import Encoded, encode_batches
from gpt_pretrain.errors import InputError
from gpt_pretrain.tokenizer import SEGMENT, Tokenizer, byte_lengths, tokenizer_fingerprint

log = logging.getLogger(__name__)

PROGRESS = "progress.json"  # in an unfinished cache: how far it has come
STREAMS = {TRAIN: "train", VAL: "val"}
CHECKED_BYTES = 64 << 20  # a cache up to this size has its checksums compared whenever it is opened: 0.1 s
PARALLEL_BYTES = 16 << 20  # smaller sources are done before other processes have started
NOTED_BYTES = 4 << 30  # reading this much for the first time takes seconds, so it is said
CUT = "documents end at their marks"  # unlike those of earlier caches, with data.special_tokens
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
        """Where each document of a stream begins, in tokens."""
        return stream_documents(self.folder, self.index, stream)

    @property
    def marks(self) -> dict[str, int]:
        """End marks that stand in the text and became ordinary tokens, with how often; a cache of an earlier
        version does not know.
        """
        return self.index.get("marks", {})

    @property
    def n_written(self) -> int:
        """Bytes of text that the tokens stand for; 0: a cache of an earlier version does not know."""
        return sum(stream.get("written", 0) for stream in self.index["streams"].values())

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
    identity = [
        FORMAT,
        SEGMENT,
        content,
        tokenizer_fingerprint(tokenizer),
        split,
        fraction,
        config.special_tokens and CUT,
    ]
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
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("data    another process tokenizes the same text: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(
    partial: Path, source: Source, config: DataConfig, tokenizer: Tokenizer, *, split: str, content: str
) -> dict[str, Any]:
    """Tokenize the source into `partial`, from where an earlier build of it was interrupted."""
    finished, _ = _read(partial, checksums=False)
    if finished is not None:  # killed before it was given its name
        (partial / PROGRESS).unlink(missing_ok=True)
        return finished
    dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    index = {"format": FORMAT, "dtype": dtype, "content": content, "tokenizer": tokenizer.name}
    streams = [TRAIN] if split == "none" else [TRAIN, VAL]
    build = _Build(partial, index, streams, byte_lengths(tokenizer))
    if skipped := build.n_batches:
        log.info(
            "data    an interrupted build of %s is there: going on after %d batches", source.name, skipped
        )
    marks = CountedMarks(ordinary_marks(tokenizer, allow_special=config.special_tokens))
    ends = ending_marks(tokenizer, allow_special=config.special_tokens)
    with ReadingBar("tokenizing", source) as bar:
        documents = cut_at(ends, marks.of(source.documents(bar.advance)))
        texts = batches(documents, side_of(source, config, split, ends), tokenizer.safe)
        for _ in range(skipped):
            next(texts, None)
        options: dict[str, Any] = {"allow_special": config.special_tokens, "dtype": dtype}
        for encoded in encode_batches(texts, tokenizer, _n_workers(source, config), **options):
            build.append(encoded)
    build.commit()
    try:
        if source.fingerprint() != content:
            raise InputError(f"{source.name} changed while it was read: try again")
        if not build.has_text:
            raise InputError(f"{source.name} holds no {source.holds}: give another data.path")
    except InputError:
        shutil.rmtree(partial)  # going on from it would end here again
        raise
    return build.finish(marks.counts)


class _Build:
    """A cache folder that is being written. `progress.json` says what of it is safe on the disk, so that a
    build after a killed one goes on from there.
    """

    def __init__(self, folder: Path, index: dict[str, Any], streams: list[int], lengths: np.ndarray) -> None:
        """`index` is all that will be written to the index but the streams; `lengths`: bytes of each id."""
        self.folder, self.index, self.lengths = folder, index, lengths
        done = self._resume()
        self.n_batches: int = done["batches"]
        self.writers = {
            stream: StreamWriter(
                folder, STREAMS[stream], index["dtype"], done["streams"].get(STREAMS[stream])
            )
            for stream in streams
        }
        self._committed = time.monotonic()

    @property
    def has_text(self) -> bool:
        """Whether any of it is more than white space."""
        return any(writer.state["has_text"] for writer in self.writers.values())

    def append(self, encoded: dict[int, Encoded]) -> None:
        """Take the next batch, and commit where the last commit is long ago."""
        for stream, part in encoded.items():
            self.writers[stream].append(part.tokens, part.documents)
            state = self.writers[stream].state
            state["characters"] += part.characters
            state["bytes"] += part.n_bytes
            if "written" in state:  # else an earlier version has begun it
                state["written"] += int(self.lengths[part.tokens].sum())
            state["has_text"] |= part.has_text
        self.n_batches += 1
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Bring all batches so far to the disk, then the note that they are there."""
        for writer in self.writers.values():
            writer.sync()
        write_note(self.folder / PROGRESS, {"batches": self.n_batches, "streams": self._states()})
        self._committed = time.monotonic()

    def finish(self, marks: dict[str, int]) -> dict[str, Any]:
        """Write the index, which makes the folder a cache; returns it."""
        self.index |= {"streams": self._states(), "marks": marks}
        write_note(self.folder / INDEX, self.index)
        (self.folder / PROGRESS).unlink()
        return self.index

    def _resume(self) -> dict[str, Any]:
        """What an earlier build has committed; where that is nothing or damaged, the folder begins empty."""
        done = read_note(self.folder / PROGRESS)
        if done and not damage(self.folder, self.index | done, checksums=False, unfinished=True):
            return done
        if self.folder.is_dir():
            shutil.rmtree(self.folder)
        self.folder.mkdir()
        return {"batches": 0, "streams": {}}

    def _states(self) -> dict[str, Any]:
        return {STREAMS[stream]: writer.state for stream, writer in self.writers.items()}


def side_of(source: Source, config: DataConfig, split: str, ends: list[str]) -> Side:
    """Which text trains and which validates, for split=characters, documents or none; `ends` are the marks
    that its documents are cut at.
    """
    if split == "documents":
        return ByDocuments(config.val_fraction)
    if split == "characters":
        n_characters = 0
        with ReadingBar("reading", source) as bar:
            for document in cut_at(ends, source.documents(bar.advance)):
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
