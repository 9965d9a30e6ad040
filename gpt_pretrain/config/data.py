"""Text, its tokens and its batches."""

from dataclasses import dataclass, field
from typing import Any

from gpt_pretrain.config.fields import check_processes, number, one_of, path_to
from gpt_pretrain.errors import InputError


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Which text, how it is split, and how it is cut into batches."""

    source: str = "python_reference"  # data/sources.py has the table, token_files beside it
    path: str | None = path_to()  # a file, a folder or a glob; hugging_face: a data set's name or folder
    pattern: str | None = None  # which files of a folder, as in *.txt; None: every kind that can be read
    text_field: str = "text"  # of .jsonl, .parquet and Hugging Face data: where the text stands
    subset: str | None = None  # hugging_face: the data set's configuration
    section: str = "train"  # hugging_face: which of the data set's own splits
    url: str | None = None  # where the_verdict is downloaded from when no path is given
    sha256: str | None = None  # of what is downloaded
    # mixture: {path: weight, ...} or [path:weight, ...]; typed as a mapping, Hydra would not let it be set
    sources: Any = path_to()  # noqa: RUF009 - a field, as all that `fields` gives
    token_dtype: str = one_of("auto", "uint16", "uint32", "int32", "int64")  # of token files without a header
    special_tokens: bool = False  # <|endoftext|> and its like inside a text become their ids
    split: str = one_of("characters", "tokens", "documents")  # what val_fraction counts
    val_fraction: float = number(0.1, above=0, below=1)  # from the end; documents: drawn by their content
    prompt: str | None = None  # how samples begin, unless trainer.sample_prompt says it
    val_path: str | None = path_to()  # validate on this instead; the source is then trained on as a whole
    # of tokens; None: $GPT_PRETRAIN_CACHE, else ~/.cache/gpt_pretrain
    cache_dir: str | None = path_to(written=True)
    batch_size: int = number(4, at_least=1)  # sequences per device and micro-step
    stride: int | None = number(None, at_least=1)  # tokens from window to window; None: the context length
    order: str = one_of("seed", "book")  # of windows; book: as its shuffling loader, by trainer.draws=book
    epochs: float = number(1.0, above=0)  # passes over it, where no trainer.max_... is set
    max_windows: int | None = number(None, at_least=1)  # train on the first few only, to see a model overfit
    num_workers: int = number(0, at_least=0)  # loader processes
    prepare_workers: int | None = number(None, at_least=0)  # tokenizing processes; None: one a core

    def window_stride(self, context_length: int) -> int:
        """Tokens from one training window's begin to the next one's."""
        return self.stride or context_length

    def weights(self) -> dict[str | None, float]:
        """Each source's path, None for one that needs none, with its weight."""
        if self.sources:
            return {str(path): weight for path, weight in self.sources.items()}  # a folder may be named 2024
        return {self.path: 1.0}

    def key_of(self, path: str | None) -> str:
        """The setting that names this source's path."""
        return "data.val_path" if path == self.val_path else "data.sources" if self.sources else "data.path"

    def holds_tokens(self, path: str | None) -> bool:
        """Whether a source is a file of tokens, not of text."""
        if self.source == "mixture":
            return str(path).lower().endswith(".bin")
        return self.source == "token_files"

    def check(self) -> None:
        check_processes("data.num_workers", self.num_workers)
        check_processes("data.prepare_workers", self.prepare_workers)
        if self.source in ("text_files", "gutenberg", "hugging_face", "token_files") and not self.path:
            raise InputError(
                "data.path is not set: give a file, a folder or a glob, as in data.path='books/*.txt'"
            )
        if self.source == "python_reference" and self.path:
            raise InputError(
                f"data.path={self.path} is not read by data=python_reference: choose data=text_files"
            )
        if self.source == "mixture" and not self.sources:
            raise InputError(
                "data.sources is not set: give each path its weight, as in data.sources='{a.txt:3,b.txt:1}'"
            )
        if self.source != "mixture" and self.sources:
            raise InputError(f"data.sources is not read by data={self.source}: choose data=mixture")
        if self.token_dtype != "auto" and self.source not in ("token_files", "mixture"):
            raise InputError(
                f"data.token_dtype is not read by data={self.source}: choose data=token_files or mixture"
            )
        if self.sources and not isinstance(self.sources, dict):
            raise InputError(
                f"data.sources={self.sources} is no mapping of paths to weights, as {{a.txt:3}} is"
            )
        if self.order == "book" and self.source == "mixture":
            raise InputError(
                "data.order=book shuffles one text, data=mixture has several: set data.order=seed"
            )
        if self.order == "book" and self.num_workers:
            raise InputError(
                f"data.order=book shuffles between steps, ahead of which data.num_workers={self.num_workers} "
                "would read: set data.num_workers=0"
            )
        for path, weight in (self.sources or {}).items():
            if not isinstance(weight, int | float) or not 0 < weight < float("inf"):
                raise InputError(
                    f"data.sources: the weight of {path} is {weight}, it must be a number above 0"
                )


# Where weights are given, these are the tokenizer that the weights were trained with: ids keep their meaning.
FROM_WEIGHTS = ("from_weights", "trained")


@dataclass(kw_only=True, slots=True)
class TokenizerConfig:
    """How text becomes token ids."""

    name: str = "trained"  # tokenizer/build.py has the table
    # tiktoken: a ranks file; huggingface: a tokenizer.json; characters, trained: another text than the data
    path: str | None = path_to()
    vocab_size: int = number(2048, at_least=257, at_most=1 << 20)  # trained: ids, special ones included
    train_mb: int = number(32, at_least=1)  # trained: of its beginning, 10^6 characters
    encoding: str = one_of("gpt2", "cl100k_base", "o200k_base")  # tiktoken: its pattern and special tokens
    pattern: str | None = None  # tiktoken: a regular expression in place of the encoding's
    end_of_text: str = "<|endoftext|>"  # huggingface: which of its tokens ends a text
    special_tokens: list[str] = field(default_factory=list)  # added after the vocabulary

    def check(self) -> None:
        if self.name in ("tiktoken", "huggingface") and self.path is None:
            raise InputError(
                f"tokenizer.path is not set: tokenizer={self.name} reads a local file, as in "
                + ("tokenizer.path=cl100k_base.tiktoken" if self.name == "tiktoken" else "tokenizer.json")
            )
        if self.vocab_size < 257 + len(self.special_tokens):
            raise InputError(
                f"tokenizer.vocab_size={self.vocab_size} cannot hold 256 bytes and "
                f"1 + {len(self.special_tokens)} special tokens: at least {257 + len(self.special_tokens)}"
            )
        for token in self.special_tokens:
            if not isinstance(token, str):
                raise InputError(f"tokenizer.special_tokens: {token} is no text: write [first,second]")
            if not token or any(character.isspace() for character in token):
                raise InputError(
                    f"tokenizer.special_tokens: {token!r} is empty or holds a space, as no special token may"
                )
        if len(set(self.special_tokens)) < len(self.special_tokens):
            raise InputError("tokenizer.special_tokens names a token twice")
