"""Which text is trained on: every source gives documents, a fingerprint of its content and its size."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from gpt_pretrain.config import DataConfig, nearest
from gpt_pretrain.config.paths import expanded
from gpt_pretrain.data.files import (
    Document,
    OnBytes,
    documents_in,
    missing_extra,
    text_of,
)
from gpt_pretrain.data.fingerprints import content_digest, remembered
from gpt_pretrain.data.gutenberg import decode_book, is_english, strip_matter
from gpt_pretrain.data.kinds import PACKED, kind_of
from gpt_pretrain.data.listing import Listing, find_files
from gpt_pretrain.data.notes import combined, keep_note, read_note
from gpt_pretrain.data.python_reference import PythonReference
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.foreign import read_json
from gpt_pretrain.tokenizer import without_surrogates
from gpt_pretrain.weights.download import Expected, UnreachableError, download

log = logging.getLogger(__name__)

SAVED_STATE = "state.json"  # in a folder of Dataset.save_to_disk()
STORY_BYTES = 1 << 20  # the story has 20 thousand; an address that sends more sends something else


class Source(Protocol):
    """Text to train on, as documents."""

    name: str  # its path, as the user gave it
    holds: str  # what its documents are, for messages
    files: list[Path]  # all of whose text it gives
    digests: dict[Path, str]  # of the content of each, when its fingerprint was last taken
    listing: Listing  # those, with what was passed over beside them
    n_files: int
    files_read: int  # so far, for the progress bar
    n_bytes: int  # of the files as they are on disk; 0: not known before reading

    def fingerprint(self) -> str:
        """Differs wherever the documents do."""
        ...

    def documents(self, on_bytes: OnBytes) -> Iterator[Document]: ...


def build_source(config: DataConfig, path: str | None, cache: Path) -> Source:
    """The source that `config` describes, with `path` for its data.path. Raises InputError."""
    build = SOURCES.get(config.source)
    if build is None:
        known = [*SOURCES, "token_files"]
        raise InputError(
            f"data.source={config.source} is none of {', '.join(known)}{nearest(config.source, known)}"
        )
    return build(config, path, cache)


def alphabet_of(source: Source, cache: Path) -> str:
    """Every character of the source's text, in order; kept in the cache."""
    note = cache / "alphabets" / f"{source.fingerprint()}.json"
    if (known := read_note(note)) is not None:
        return known
    characters: set[str] = set()
    for document in source.documents(lambda n_bytes: None):
        for piece in document:
            characters.update(without_surrogates(piece))
    alphabet = "".join(sorted(characters))
    keep_note(note, alphabet)
    return alphabet


def cache_dir(config: DataConfig | None = None) -> Path:
    """What all runs share: downloads and token caches."""
    if config is not None and config.cache_dir:
        return Path(config.cache_dir)
    if own := os.environ.get("GPT_PRETRAIN_CACHE"):
        return Path(expanded("GPT_PRETRAIN_CACHE", own))
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(expanded("XDG_CACHE_HOME", shared)) / "gpt_pretrain"
    try:
        return Path.home() / ".cache" / "gpt_pretrain"
    except RuntimeError as error:  # a container's user without a name
        raise InputError(
            "this user has no home folder to keep tokens in: set data.cache_dir=<folder>, "
            "or GPT_PRETRAIN_CACHE in the environment"
        ) from error


class TextFiles:
    """The documents of files of text, one after another."""

    kind, holds = "text_files", "text"

    def __init__(self, name: str, listing: Listing, config: DataConfig, cache: Path) -> None:
        self.name, self.listing, self.files = name, listing, listing.files
        self.text_field, self.cache = config.text_field, cache
        self.n_files, self.files_read = len(self.files), 0
        self.digests: dict[Path, str] = {}
        self.n_bytes = sum(_size(file) for file in self.files)

    def fingerprint(self) -> str:
        """Of the files' content in the order of their names; the names themselves do not count."""
        self.digests = {file: _digest(file, self.cache) for file in self.files}
        kinds = [kind_of(file) for file in self.files]
        return combined(self.kind, self.text_field, kinds, list(self.digests.values()))

    def documents(self, on_bytes: OnBytes) -> Iterator[Document]:
        for number, file in enumerate(self.files):
            self.files_read = number
            yield from documents_in(file, self.text_field, on_bytes)


class Gutenberg(TextFiles):
    """Books without Gutenberg's own words around them, repaired, in English. A book is held whole."""

    kind, holds = "gutenberg", "text in English"

    def documents(self, on_bytes: OnBytes) -> Iterator[Document]:
        for number, file in enumerate(self.files):
            self.files_read = number
            if kind_of(file) != "text" or file.suffix.lower() in PACKED:
                raise InputError(
                    f"{file} is no book as data=gutenberg reads it, a plain .txt: unpack it, "
                    "or choose data=text_files"
                )
            text = strip_matter(decode_book(_read(file)))
            on_bytes(_size(file))
            if is_english(text):
                yield [text]


class HuggingFace:
    """A Hugging Face data set, by its name on the hub or a local folder, streamed."""

    holds, n_bytes = "text", 0

    def __init__(self, path: str, config: DataConfig, cache: Path) -> None:
        self.name, self.config, self.cache = path, config, cache
        _check_section(path, config)
        self.local = sorted(f for f in Path(path).rglob("*") if f.is_file()) if Path(path).is_dir() else []
        self.files: list[Path] = []  # a section may be a part of them
        self.digests: dict[Path, str] = {}
        self.listing = Listing(files=[])
        self.n_files, self.files_read = 1, 0

    def fingerprint(self) -> str:
        """Of the local files, whose names say which section they belong to, else of the hub's revision."""
        if self.local:
            names = [str(file.relative_to(self.name)) for file in self.local]
            content: Any = [names, [_digest(file, self.cache) for file in self.local]]
        else:
            content = _hub_revision(self.name, self.cache)
        settings = [self.config.subset, self.config.section, self.config.text_field]
        return combined("hugging_face", *settings, content)

    def documents(self, on_bytes: OnBytes) -> Iterator[Document]:
        for row in _dataset_rows(self.name, self.config):
            if text := text_of(row, self.config.text_field, self.name):
                on_bytes(len(text.encode("utf-8", "surrogatepass")))
                yield [text]


def _dataset_rows(path: str, config: DataConfig) -> Iterator[Any]:
    try:
        from datasets import load_dataset, load_from_disk
    except ImportError as error:
        raise missing_extra("data=hugging_face needs datasets") from error
    try:
        if _is_one_section(path):
            yield from load_from_disk(path)
        else:
            yield from load_dataset(path, config.subset, split=config.section, streaming=True)
    except Exception as error:  # the library raises many kinds, its own, Arrow's and of HTTP
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"data.path={path}, data.section={config.section} cannot be loaded: {first}"
        ) from error


def _is_one_section(path: str) -> bool:
    """Whether it is a folder of Dataset.save_to_disk(), which leaves nothing to choose from."""
    return (Path(path) / SAVED_STATE).is_file()


def _check_section(path: str, config: DataConfig) -> None:
    """Raise InputError where a section or subset is asked of a folder that holds another, or does not say."""
    if not _is_one_section(path):
        return
    own = read_json(Path(path) / SAVED_STATE).get("_split")
    what = f"data.path={path} holds one section" + (f", {own}" if own else "")
    if config.section not in (own, DataConfig().section):
        raise InputError(f"{what}, not data.section={config.section}: leave data.section out")
    if config.subset is not None:
        raise InputError(f"{what} of one subset: leave data.subset={config.subset} out")


def _hub_revision(path: str, cache: Path) -> str:
    """What the hub has now; where it cannot be reached, as on a compute node, what it had when last asked."""
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise missing_extra("data=hugging_face needs datasets") from error
    note = cache / "revisions" / f"{combined(path)}.json"
    try:
        revision = str(HfApi().dataset_info(path, timeout=5).sha)
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        if (known := read_note(note)) is None:
            raise InputError(
                f"data.path={path} holds no files, and the hub does not know it or cannot be reached: {first}"
            ) from error
        log.info("data    %s as it was, revision %s: the hub cannot be reached: %s", path, known, first)
        return known
    keep_note(note, revision)
    return revision


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
    remedy = "download it by hand and give its file as data.path=<the-verdict.txt>"
    try:
        download(
            [config.url or ""],
            path,
            Expected(sha256=config.sha256, at_most=STORY_BYTES),
            again_if_damaged=True,
            timeout=5,
            setting="data.cache_dir",
        )
    except (UnreachableError, ValueError) as error:  # ValueError: what is no address at all
        raise InputError(f"data.url={config.url} cannot be reached ({error}):\n{remedy}") from error
    except ArtifactError as error:
        raise ArtifactError(f"{error}\n{remedy}") from error
    return path


def _text_files(config: DataConfig, path: str | None, cache: Path) -> Source:
    return TextFiles(
        path or "", find_files(path or "", config.pattern, key=config.key_of(path)), config, cache
    )


def _story(config: DataConfig, path: str | None, cache: Path) -> Source:
    file = Path(path) if path else _the_verdict(config, cache)
    return TextFiles(str(file), Listing(files=[file]), config, cache)


def _python_reference(config: DataConfig, path: str | None, cache: Path) -> Source:
    return PythonReference() if path is None else _text_files(config, path, cache)  # of data.val_path


def _gutenberg(config: DataConfig, path: str | None, cache: Path) -> Source:
    return Gutenberg(path or "", find_files(path or "", config.pattern, (".txt",)), config, cache)


# By data.source. A new one is a class above, an entry here and its option in conf/data/.
SOURCES: dict[str, Callable[[DataConfig, str | None, Path], Source]] = {
    "python_reference": _python_reference,
    "the_verdict": _story,
    "text_files": _text_files,
    "mixture": _text_files,
    "gutenberg": _gutenberg,
    "hugging_face": lambda config, path, cache: HuggingFace(path or "", config, cache),
}
