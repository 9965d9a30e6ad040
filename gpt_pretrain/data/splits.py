"""Which part of the text is validation data, decided while it is read, and batches of segments of both."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator

from gpt_pretrain.data.files import Document
from gpt_pretrain.data.workers import Segment
from gpt_pretrain.tokenizer import SEGMENT, segments

TRAIN, VAL = 0, 1  # streams
BATCH_CHARACTERS = SEGMENT  # text that goes to a tokenizing process at once
BATCH_SEGMENTS = 4096
BEGINNING = 1 << 16  # characters by which a document is told from others

# A document's parts: the stream each belongs to, whether it begins the document, its text.
Parts = Iterator[tuple[int, bool, Iterable[str]]]
Side = Callable[[Document], Parts]


def whole(document: Document) -> Parts:
    """All of it trains; the validation data is cut off later, or comes from elsewhere."""
    yield TRAIN, True, document


class ByCharacters:
    """The first `n_train` characters of all documents together train, the others validate (the book, chapter
    5); one document may lie on both sides.
    """

    def __init__(self, n_train: int) -> None:
        self.left = n_train

    def __call__(self, document: Document) -> Parts:
        pieces = iter(document)
        beyond: list[str] = []
        begins_here = self.left == 0
        yield TRAIN, True, self._until_cut(pieces, beyond)
        yield VAL, begins_here, _chained(beyond, pieces)

    def _until_cut(self, pieces: Iterator[str], beyond: list[str]) -> Iterator[str]:
        while self.left > 0 and (piece := next(pieces, None)) is not None:
            if len(piece) > self.left:
                beyond.append(piece[self.left :])
            yield piece[: self.left]
            self.left -= min(self.left, len(piece))


class ByDocuments:
    """Each document whole, on a side drawn by its beginning: other documents, their order and the files'
    names do not matter, and two of the same content are never on both sides.
    """

    def __init__(self, val_fraction: float) -> None:
        self.threshold = int(val_fraction * 2**64)

    def __call__(self, document: Document) -> Parts:
        pieces = iter(document)
        held: list[str] = []
        while sum(map(len, held)) < BEGINNING and (piece := next(pieces, None)) is not None:
            held.append(piece)
        beginning = "".join(held)[:BEGINNING].encode("utf-8", "replace")
        drawn = int.from_bytes(hashlib.blake2b(beginning, digest_size=8).digest(), "big")
        yield VAL if drawn < self.threshold else TRAIN, True, _chained(held, pieces)


def batches(documents: Iterable[Document], side: Side, safe: re.Pattern[str]) -> Iterator[list[Segment]]:
    """All segments of all documents, in batches of about `BATCH_CHARACTERS`: a function of the text alone."""
    batch: list[Segment] = []
    size = 0
    for document in documents:
        for stream, begins, pieces in side(document):
            for text in segments(pieces, safe):
                batch.append((stream, begins, text))
                begins = False
                size += len(text)
                if size >= BATCH_CHARACTERS or len(batch) == BATCH_SEGMENTS:
                    yield batch
                    batch, size = [], 0
    if batch:
        yield batch


def _chained(held: list[str], pieces: Iterator[str]) -> Iterator[str]:
    yield from held
    yield from pieces
