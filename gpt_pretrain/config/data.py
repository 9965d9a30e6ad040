"""Text, its tokens and its batches."""

from dataclasses import dataclass

from gpt_pretrain.config.fields import number, one_of


@dataclass(kw_only=True, slots=True)
class DataConfig:
    source: str = one_of("python_reference", "the_verdict", "text_files")
    path: str | None = None  # text_files: a file, a folder or a glob; the_verdict: the story's file
    pattern: str = "*.txt"  # which files of a folder
    url: str | None = None  # where the_verdict is downloaded from when no path is given
    sha256: str | None = None
    val_fraction: float = number(0.1, above=0, below=1)  # share of the characters, from the end
    batch_size: int = number(8, at_least=1)  # sequences per device and micro-step
    stride: int | None = number(None, at_least=1)  # tokens from window to window; None: the context length
    max_windows: int | None = number(None, at_least=1)  # train on the first few only, to see a model overfit
    num_workers: int = number(0, at_least=0)  # loader processes


@dataclass(kw_only=True, slots=True)
class TokenizerConfig:
    name: str = one_of("gpt2", "bytes")
