"""The text of the Python language reference, which every CPython ships: a document a topic."""

import pydoc_data.topics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from gpt_pretrain.data.files import Document, OnBytes
from gpt_pretrain.data.listing import Listing
from gpt_pretrain.data.notes import combined


class PythonReference:
    """The language reference that every CPython ships, a document a topic.

    Some topics are chapters that repeat others whole. A topic that mostly stands in others is left out: what
    validates would otherwise be trained on too.
    """

    name, holds = "python_reference", "text"
    n_files, files_read = 1, 0

    def __init__(self) -> None:
        self.files: list[Path] = []
        self.digests: dict[Path, str] = {}
        self.listing = Listing(files=[])
        self.topics = without_repeats(pydoc_data.topics.topics)
        self.n_bytes = sum(len(text.encode()) for text in self.topics)

    def fingerprint(self) -> str:
        return combined(self.name, self.topics)

    def documents(self, on_bytes: OnBytes) -> Iterator[Document]:
        for text in self.topics:
            yield [text]
            on_bytes(len(text.encode()))


def without_repeats(texts: Mapping[str, str]) -> list[str]:
    """Texts in the order of their names, but those of which more than half stands in others: first the long
    ones that are made of shorter ones, then the short ones that a remaining one holds.
    """
    by_length = sorted(texts, key=lambda name: (len(texts[name]), name))
    kept: dict[str, set[str]] = {}
    for name in by_length:
        paragraphs = {" ".join(paragraph.split()) for paragraph in texts[name].split("\n\n")}
        if not _mostly_in(paragraphs, kept.values()):
            kept[name] = paragraphs
    for name in by_length:
        if name in kept and _mostly_in(kept[name], [other for key, other in kept.items() if key != name]):
            del kept[name]
    return [texts[name] for name in sorted(kept)]


def _mostly_in(paragraphs: set[str], others: Iterable[set[str]]) -> bool:
    known = set().union(*others)
    return 2 * sum(len(text) for text in paragraphs & known) > sum(map(len, paragraphs))
