"""Project Gutenberg books as text to train on: the book's bonus recipe of chapter 5, put right.

The recipe's own save condition is inverted, so it keeps the books in other languages; here English stays.
"""

import codecs
import re
from contextlib import suppress

# The markers as the files have them: *** START OF THE PROJECT GUTENBERG EBOOK ..., THIS ..., ETEXT ...
# A long title may go on for some lines.
_OF_GUTENBERG = r"OF (?:THE |THIS )?PROJECT GUTENBERG"
_START = re.compile(
    rf"^[ \t]*\*{{3}} ?START {_OF_GUTENBERG}[^\n]*?(?:\n[^\n]+?){{0,4}}?\*{{3}}[^\n]*$", re.I | re.M
)
_OLD_START = re.compile(r"^\*END[* ]*THE SMALL PRINT[^\n]*$", re.I | re.M)
_CREDITS = re.compile(
    r"\s*(?:(?:Produced|Transcribed) (?:by|from)|E-?text prepared by|This etext was)[^\n]*(?:\n[^\n]+)*", re.I
)
_END = re.compile(
    rf"^[ \t]*(?:\*{{3}} ?END {_OF_GUTENBERG}|End of (?:the |this )?Project Gutenberg)", re.I | re.M
)
_MOJIBAKE = re.compile(r"[ÂÃâ][^\x00-\x7f]")


def decode_book(content: bytes) -> str:
    """UTF-8 where it is, UTF-16 where it says so, else Windows' Latin-1: what Gutenberg's files come in.
    UTF-8 that was once read as Latin-1 and stored again is undone.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", "replace")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252", "as-latin-1")
    if _MOJIBAKE.search(text):
        with suppress(UnicodeError):  # else it only looked like it
            text = text.encode("cp1252", "as-latin-1").decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _as_latin1(error: UnicodeError) -> tuple[str | bytes, int]:
    """For the bytes and characters that Windows' Latin-1 leaves undefined; browsers do it too."""
    assert isinstance(error, UnicodeDecodeError | UnicodeEncodeError)
    part = error.object[error.start : error.end]
    return part.decode("latin-1") if isinstance(part, bytes) else part.encode("latin-1"), error.end


codecs.register_error("as-latin-1", _as_latin1)


def strip_matter(text: str) -> str:
    """The book between Gutenberg's START and END markers, without the credits of those who typed it; where a
    marker is absent, from the beginning or to the end.
    """
    start = _START.search(text) or _OLD_START.search(text)
    begin = start.end() if start else 0
    if credits := _CREDITS.match(text, begin):
        begin = credits.end()
    end = _END.search(text, begin)
    return text[begin : end.start() if end else len(text)].strip()


def is_english(text: str) -> bool:
    """True where at least nine in ten letters are ASCII and the commonest English words are common enough.

    The recipe counts ASCII alone, which Latin and most of Dutch pass too.
    """
    letters = sum(character.isalpha() for character in text)
    ascii_letters = sum(character.isascii() and character.isalpha() for character in text)
    if letters == 0 or ascii_letters < 0.9 * letters:
        return False
    words = re.findall(r"[a-z']+", text.lower())
    common = sum(word in _COMMON for word in words)
    return common >= 0.1 * len(words)


_COMMON = frozenset(
    re.findall("[a-z]+", "the and of to a in that it is was he for as with his on be at by i not but")
)
