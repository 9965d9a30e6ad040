"""Which text is trained on: every source gives documents, a fingerprint of its content and its size."""

import hashlib
import json
import os
import pydoc_data.topics
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from gpt_pretrain.config import DataConfig
from gpt_pretrain.data.files import Document, OnBytes, documents_in, find_files, missing_extra
from gpt_pretrain.data.fingerprints import combined, content_digest, make_cache_folder, remembered
from gpt_pretrain.data.gutenberg import decode_book, is_english, strip_matter
from gpt_pretrain.errors import ArtifactError, InputError


class Source(Protocol):
    name: str
    n_files: int
    files_read: int  # so far, for the progress bar
    n_bytes: int  # of the files as they are on disk; 0: not known before reading

    def fingerprint(self) -> str:
        """Differs wherever the documents do."""
        ...

    def documents(self, on_bytes: OnBytes) -> Iterator[Document]: ...


def build_source(config: DataConfig, path: str | None, cache: Path) -> Source:
    """The source that `config` describes, with `path` for its data.path. Raises InputError."""
    match config.source:
        case "python_reference" if path is None:
            return PythonReference()
        case "the_verdict":
            return TextFiles([Path(path) if path else _the_verdict(config, cache)], config, cache)
        case "gutenberg":
            return Gutenberg(find_files(path or "", config.pattern or "*.txt"), config, cache)
        case "hugging_face":
            return HuggingFace(path or "", config, cache)
        case _:
            return TextFiles(find_files(path or "", config.pattern), config, cache)


def alphabet_of(source: Source, cache: Path) -> str:
    """Every character of the source's text, in order; kept in the cache."""
    note = cache / "alphabets" / f"{source.fingerprint()}.json"
    if note.is_file():
        return json.loads(note.read_bytes())
    characters: set[str] = set()
    for document in source.documents(lambda n_bytes: None):
        for piece in document:
            characters.update(piece)
    make_cache_folder(note.parent)
    partial = note.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps("".join(sorted(characters))))
    partial.replace(note)
    return "".join(sorted(characters))


def cache_dir(config: DataConfig | None = None) -> Path:
    """What all runs share: downloads and token caches."""
    if config is not None and config.cache_dir:
        return Path(config.cache_dir)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("GPT_PRETRAIN_CACHE") or Path(base) / "gpt_pretrain")


class PythonReference:
    """The language reference that every CPython ships, as one document."""

    name = "python_reference"
    n_files, files_read = 1, 0

    def __init__(self) -> None:
        topics = pydoc_data.topics.topics
        self.text = "\n\n".join(topics[name] for name in sorted(topics))
        self.n_bytes = len(self.text.encode())

    def fingerprint(self) -> str:
        return combined(self.name, hashlib.blake2b(self.text.encode(), digest_size=16).hexdigest())

    def documents(self, on_bytes: OnBytes) -> Iterator[Document]:
        yield [self.text]
        on_bytes(self.n_bytes)


class TextFiles:
    name = "text_files"

    def __init__(self, files: list[Path], config: DataConfig, cache: Path) -> None:
        self.files, self.text_field, self.cache = files, config.text_field, cache
        self.n_files, self.files_read = len(files), 0
        self.n_bytes = sum(_size(file) for file in files)

    def fingerprint(self) -> str:
        """Of the files' content in the order of their names; the names themselves do not count."""
        digests = [_digest(file, self.cache) for file in self.files]
        return combined(self.name, self.text_field, [_kind(file) for file in self.files], digests)

    def documents(self, on_bytes: OnBytes) -> Iterator[Document]:
        for number, file in enumerate(self.files):
            self.files_read = number
            yield from documents_in(file, self.text_field, on_bytes)


class Gutenberg(TextFiles):
    """Books without Gutenberg's own words around them, repaired, in English. A book is held whole."""

    name = "gutenberg"

    def documents(self, on_bytes: OnBytes) -> Iterator[Document]:
        for number, file in enumerate(self.files):
            self.files_read = number
            text = strip_matter(decode_book(_read(file)))
            on_bytes(_size(file))
            if is_english(text):
                yield [text]


class HuggingFace:
    """A Hugging Face data set, by its name on the hub or a local folder, streamed."""

    name = "hugging_face"
    n_bytes = 0

    def __init__(self, path: str, config: DataConfig, cache: Path) -> None:
        self.path, self.config, self.cache = path, config, cache
        self.local = sorted(f for f in Path(path).rglob("*") if f.is_file()) if Path(path).is_dir() else []
        self.n_files, self.files_read = 1, 0

    def fingerprint(self) -> str:
        """Of the local files, else of the hub's revision."""
        if self.local:
            content: Any = [_digest(file, self.cache) for file in self.local]
        else:
            content = _hub_revision(self.path)
        return combined(self.name, self.config.subset, self.config.section, self.config.text_field, content)

    def documents(self, on_bytes: OnBytes) -> Iterator[Document]:
        field = self.config.text_field
        for row in _load_dataset(self.path, self.config):
            if field not in row:
                raise InputError(f"data.text_field={field} is not in {self.path}: it holds {', '.join(row)}")
            if not isinstance(row[field] or "", str):
                kind = type(row[field]).__name__
                raise InputError(f"data.text_field={field} of {self.path} is of type {kind}, not text")
            if row[field]:
                yield [row[field]]


def _load_dataset(path: str, config: DataConfig) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise missing_extra("data=hugging_face needs datasets") from error
    try:
        return load_dataset(path, config.subset, split=config.section, streaming=True)
    except Exception as error:  # the library raises many kinds, its own and of HTTP
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"data.path={path}, data.section={config.section} cannot be loaded: {first}"
        ) from error


def _hub_revision(path: str) -> str:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise missing_extra("data=hugging_face needs datasets") from error
    try:
        return str(HfApi().dataset_info(path, timeout=5).sha)
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"data.path={path} is no folder, and the hub does not know it or cannot be reached: {first}"
        ) from error


def _kind(file: Path) -> str:
    return next((kind for kind in (".jsonl", ".parquet") if kind in file.name), "text")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise InputError(f"data.path={file} cannot be read: {error.strerror}") from error


def _digest(file: Path, cache: Path) -> str:
    try:
        return remembered(file, cache, "content", content_digest)["digest"]
    except OSError as error:
        raise InputError(f"data.path={file} cannot be read: {error.strerror}") from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"data.path={file} cannot be read: {error.strerror}") from error


def _the_verdict(config: DataConfig, cache: Path) -> Path:
    """The story's file in the cache, downloaded once and checked against its SHA-256."""
    path = cache / "the-verdict.txt"
    if path.exists():
        return path
    remedy = "download it by hand and give its file as data.path=<the-verdict.txt>"
    try:
        with urllib.request.urlopen(config.url or "", timeout=5) as response:
            content = response.read(1 << 20)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise InputError(f"data.url={config.url} cannot be reached ({error}):\n{remedy}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != config.sha256:
        raise ArtifactError(f"{config.url} has SHA-256 {digest}, not {config.sha256}:\n{remedy}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(content)
    partial.rename(path)
    return path
