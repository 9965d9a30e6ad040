"""End-of-text marks that stand inside a text, as TinyStories and nanoGPT's preparations have them: read as
text, each becomes several ordinary tokens, and documents run into each other.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from gpt_pretrain.data.files import Document
from gpt_pretrain.errors import InputError
from gpt_pretrain.tokenizer import END_OF_TEXT, Tokenizer, decode


def ordinary_marks(tokenizer: Tokenizer, *, allow_special: bool) -> list[str]:
    """The marks that end texts elsewhere and are text here: of the tokenizer's own and `<|endoftext|>`."""
    marks = dict.fromkeys([own_mark(tokenizer), END_OF_TEXT])
    return [mark for mark in marks if not _is_one_token(tokenizer, mark, allow_special=allow_special)]


def remark(tokenizer: Tokenizer, mark: str, count: int) -> str:
    """What is said of a mark that was read as text, with what would make one token of it."""
    if _is_one_token(tokenizer, mark, allow_special=True):
        remedy = "data.special_tokens=true reads it as the end of a text"
    else:
        remedy = f"write {own_mark(tokenizer)} in its place, and set data.special_tokens=true"
    times = f"{count:,} times" if count > 1 else "once"
    return f"{mark} stands in the text {times} and is read as ordinary tokens: {remedy}"


def ending_marks(tokenizer: Tokenizer, *, allow_special: bool) -> list[str]:
    """The mark that ends a document inside a text, where it is to be read as one."""
    mark = own_mark(tokenizer)
    return [mark] if allow_special and _is_one_token(tokenizer, mark, allow_special=True) else []


def cut_at(marks: Sequence[str], documents: Iterable[Document]) -> Iterator[Document]:
    """What stands between marks, each a document, whose pieces must be taken before the next one is."""
    if not marks:
        yield from documents
        return
    for document in documents:
        parts = _parts(document, marks)
        for first in parts:
            if first is not None:
                yield itertools.chain([first], iter(parts.__next__, None))


def _parts(document: Document, marks: Sequence[str]) -> Iterator[str | None]:
    """The document's text in pieces, none of them empty, and None for each mark."""
    # The longest first: of alternatives the first that matches is taken, and one may begin another.
    pattern = re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)))
    rest = ""
    for piece in document:
        *before, rest = pattern.split(rest + piece)
        for text in before:
            if text:
                yield text
            yield None
        begun = _begun(rest, marks)
        if text := rest[: len(rest) - begun]:
            yield text
        rest = rest[len(rest) - begun :]
    if rest:
        yield rest


def _begun(text: str, marks: Sequence[str]) -> int:
    """Characters at the end of `text` that a mark may begin with."""
    lengths = range(min(len(text), max(map(len, marks)) - 1), 0, -1)
    return next((n for n in lengths if any(mark.startswith(text[-n:]) for mark in marks)), 0)


def own_mark(tokenizer: Tokenizer) -> str:
    """How this tokenizer writes the end of a text."""
    return decode(tokenizer, [tokenizer.end_of_text_id])


def _is_one_token(tokenizer: Tokenizer, mark: str, *, allow_special: bool) -> bool:
    try:
        return len(tokenizer.encode(mark, allow_special=allow_special)) == 1
    except InputError:  # an alphabet without its characters
        return False


class CountedMarks:
    """Counts marks in documents that pass through it, however these are cut into pieces."""

    def __init__(self, marks: list[str]) -> None:
        self._found = dict.fromkeys(marks, 0)

    @property
    def counts(self) -> dict[str, int]:
        """Each mark that was there, with how often."""
        return {mark: count for mark, count in self._found.items() if count}

    def of(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents as they are; each is counted while its pieces are taken."""
        return map(self._pieces, documents) if self._found else iter(documents)

    def _pieces(self, document: Document) -> Iterator[str]:
        ends = dict.fromkeys(self._found, "")  # of what came before: a mark may begin there
        for piece in document:
            for mark in ends:
                *found, rest = (ends[mark] + piece).split(mark)
                self._found[mark] += len(found)
                ends[mark] = rest[max(0, len(rest) - len(mark) + 1) :]
            yield piece
