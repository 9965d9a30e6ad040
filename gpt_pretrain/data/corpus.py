"""Everything a run trains and validates on, as token ids."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np

from gpt_pretrain.config import DataConfig
from gpt_pretrain.data.copies import check_apart, check_held_out, said_of_copies
from gpt_pretrain.data.listing import Listing, find_files
from gpt_pretrain.data.marks import remark
from gpt_pretrain.data.sources import build_source, cache_dir
from gpt_pretrain.data.token_cache import open_or_build
from gpt_pretrain.data.token_files import read_token_files
from gpt_pretrain.data.tokens import Tokens
from gpt_pretrain.data.windows import count_windows
from gpt_pretrain.errors import InputError
from gpt_pretrain.tokenizer import Tokenizer

CHANGED = 0.005  # of a text's bytes, above which it is said that its tokens write others


@dataclass(kw_only=True, slots=True)
class Part:
    """One source, split."""

    name: str
    weight: float
    train: Tokens
    val: Tokens
    fingerprint: str  # of its content
    listing: Listing  # its files, and what was passed over beside them
    n_characters: int = 0  # 0: not known, of token files
    n_bytes: int = 0
    n_written: int = 0  # bytes that its tokens stand for; 0: not known
    documents: dict[str, np.ndarray] | None = None  # stream to where its documents begin; None: not known
    token_dtypes: list[str] = field(default_factory=list)  # of token files
    marks: list[str] = field(default_factory=list)  # what is said of end-of-text marks inside its text
    digests: dict[Path, str] = field(default_factory=dict)  # of its files' content
    folder: Path | None = None  # in the cache
    built: bool = False

    @property
    def files(self) -> list[Path]:
        return self.listing.files

    def remarks(self) -> Iterator[str]:
        """What is to be said of it that its user may not expect."""
        if summary := self.listing.summary():
            yield f"{self.name}: {summary}"
        if self.token_dtypes not in ([], ["uint16"]):
            yield f"{self.name}: ids read as {' and '.join(self.token_dtypes)} (data.token_dtype)"
        yield from (f"{self.name}: {mark}" for mark in self.marks)
        if self.n_written and abs(self.n_written - self.n_bytes) > CHANGED * self.n_bytes:
            yield (
                f"{self.name}: the tokenizer changes the text: bits per byte are of {self.n_written:,} bytes "
                f"that its tokens write, not of the {self.n_bytes:,} that it has"
            )
        if said := said_of_copies(self.digests):
            yield f"{self.name}: {said}"


@dataclass(kw_only=True, slots=True)
class Corpus:
    """All that a run trains and validates on."""

    parts: list[Part]
    train: Tokens  # of all parts, one after another; no window lies across two
    val: Tokens

    def remarks(self) -> list[str]:
        """One line for each thing that the user of the data may not expect."""
        return [line for part in self.parts for line in part.remarks()]

    @property
    def n_characters(self) -> int:
        return sum(part.n_characters for part in self.parts)

    @property
    def trained(self) -> list[Part]:
        """The parts that have training tokens."""
        return [part for part in self.parts if len(part.train)]

    @property
    def fingerprints(self) -> dict[str, str]:
        """Content of each part, by which a resumed run knows its data again."""
        return {part.name: part.fingerprint for part in self.parts}


def load_corpus(config: DataConfig, tokenizer: Tokenizer, *, checksums: bool = False) -> Corpus:
    """Open the configured sources' tokens, building what is not in the cache, and split them.

    Raises InputError or ArtifactError for an unreadable source. `checksums` compares all of the cache."""
    split = "none" if config.val_path else config.split
    parts = [
        _load_part(config, path, weight, tokenizer, split=split, checksums=checksums)
        for path, weight in config.weights().items()
    ]
    if config.val_path:
        separate = _load_part(config, config.val_path, 0.0, tokenizer, split="none", checksums=checksums)
        for part in parts:
            check_held_out(config.val_path, separate.digests, part.digests)
            if separate.fingerprint == part.fingerprint:  # of what lies in no files of ours
                raise InputError(f"data.val_path={config.val_path} holds the text that is trained on")
        separate.name = f"val_path={config.val_path}"
        separate.train, separate.val = Tokens([]), separate.train
        parts.append(separate)
    elif config.split != "documents":  # which puts a document on the same side of all sources
        check_apart({part.name: part.digests for part in parts})
    return Corpus(
        parts=parts,
        train=sum((part.train for part in parts), Tokens([])),
        val=_joined([part.val for part in parts], tokenizer),
    )


def epoch_windows(corpus: Corpus, config: DataConfig, context_length: int) -> int:
    """Training windows of an epoch: those of all parts, or the first data.max_windows of them."""
    stride = config.window_stride(context_length)
    n_windows = sum(count_windows(len(part.train), context_length, stride) for part in corpus.trained)
    return min(n_windows, config.max_windows or n_windows)


def check_windows(
    corpus: Corpus, config: DataConfig, context_length: int, splits: Sequence[str] = ("train", "val")
) -> None:
    """Raise InputError where one of `splits`, or a source, has no whole window, with what would do."""
    n_all = len(corpus.train) + len(corpus.val)
    asked = [getattr(corpus, split) for split in splits]
    fitting = min(map(len, asked)) - 1
    for split, tokens, remedy in (
        ("training", corpus.train, "a smaller data.val_fraction"),
        ("validation", corpus.val, "a larger data.val_fraction"),
    ):
        if tokens in asked and count_windows(len(tokens), context_length, context_length) == 0:
            if config.split == "documents" and len(tokens) == 0:
                remedy += ", data.split=tokens"  # all of few documents may fall on one side
            if fitting > 0:
                fits = "fits both" if len(asked) > 1 else "fits"
                remedy += f", or a context that {fits}: model.context_length={fitting}"
            raise InputError(
                f"data.source={config.source} has {len(tokens)} {split} tokens of {n_all}, "
                f"too few for one window: {context_length + 1} are needed\ngive more text, {remedy}"
            )
    for part in corpus.parts if corpus.train in asked else []:
        if part.weight and count_windows(len(part.train), context_length, context_length) == 0:
            raise InputError(
                f"data.sources: {part.name} has {len(part.train)} training tokens, too few for one window: "
                f"{context_length + 1} are needed\ngive more text, leave it out, or choose a smaller "
                "model.context_length"  # else its weight would go to the others
            )


def check_same(corpus: Corpus, expected: dict[str, str], where: str) -> None:
    """Raise InputError, with both fingerprints, where a source's content is not what a run began with."""
    nothing = (None, "missing")
    pairs = zip_longest(corpus.fingerprints.items(), expected.items(), fillvalue=nothing)
    for (name, now), (former, then) in pairs:
        if now != then:
            raise InputError(
                f"{name or former} is not the text that {where} was trained on: its fingerprint is {now}, "
                f"it was {then}\ngive the same files, or begin a new run: weights=checkpoint weights.path=..."
            )


def _load_part(
    config: DataConfig, path: str | None, weight: float, tokenizer: Tokenizer, *, split: str, checksums: bool
) -> Part:
    cache = cache_dir(config)
    name = path or config.source
    if config.holds_tokens(path):
        return _token_part(config, name, weight, tokenizer, split=split, cache=cache)
    source = build_source(config, path, cache)
    streams = "none" if split == "tokens" else split
    cached = open_or_build(source, config, tokenizer, cache, split=streams, checksums=checksums)
    part = Part(
        name=name,
        weight=weight,
        train=cached.tokens("train"),
        val=Tokens([]),
        fingerprint=cached.index["content"],
        listing=source.listing,
        n_characters=cached.total("characters"),
        n_bytes=cached.total("bytes"),
        n_written=cached.n_written,
        documents={stream: cached.documents(stream) for stream in cached.index["streams"]},
        marks=[remark(tokenizer, mark, count) for mark, count in cached.marks.items()],
        digests=source.digests,
        folder=cached.folder,
        built=cached.built,
    )
    if split == "tokens":
        part.train, part.val = _cut_by_tokens(part.train, config.val_fraction)
    elif split != "none":
        part.val = cached.tokens("val")
    return part


def _token_part(
    config: DataConfig, path: str, weight: float, tokenizer: Tokenizer, *, split: str, cache: Path
) -> Part:
    if split not in ("none", "tokens"):
        raise InputError(f"data.split={split} needs text, {path} holds tokens: set data.split=tokens")
    listing = find_files(path, config.pattern, suffixes=(".bin",), key=config.key_of(path))
    found = read_token_files(
        listing.files, cache, vocab_size=tokenizer.vocab_size, token_dtype=config.token_dtype
    )
    cut = _cut_by_tokens(found.tokens, config.val_fraction)
    train, val = cut if split == "tokens" else (found.tokens, Tokens([]))
    return Part(
        name=path,
        weight=weight,
        train=train,
        val=val,
        fingerprint=found.fingerprint,
        listing=listing,
        token_dtypes=sorted(set(found.dtypes)),
        digests=dict(zip(listing.files, found.digests, strict=True)),
    )


def _cut_by_tokens(tokens: Tokens, val_fraction: float) -> tuple[Tokens, Tokens]:
    cut = int((1 - val_fraction) * len(tokens))
    return tokens.cut(0, cut), tokens.cut(cut, len(tokens))


def _joined(streams: Sequence[Tokens], tokenizer: Tokenizer) -> Tokens:
    """One stream after another, with an end-of-text token between them."""
    joined = Tokens([])
    for stream in streams:
        if len(joined) and len(stream):
            joined += Tokens([np.array([tokenizer.end_of_text_id], np.uint32)])
        joined += stream
    return joined
