"""Project Gutenberg books as text to train on: the book's bonus recipe of chapter 5, put right.

The recipe's own save condition is inverted, so it keeps the books in other languages; here English stays.
"""

import re

# The markers as the files have them: *** START OF THE PROJECT GUTENBERG EBOOK ..., THIS ..., ETEXT ...
_START = re.compile(r"^\s*\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG[^\n]*?\*{3}[^\n]*$", re.I | re.M)
_START_OPEN = re.compile(
    r"^\s*\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG[^\n]*(?:\n[^\n]+)*?\*{3}", re.I | re.M
)
_OLD_START = re.compile(r"^\*END[* ]*THE SMALL PRINT[^\n]*$", re.I | re.M)
_END = re.compile(
    r"^\s*(?:\*{3} ?END OF (?:THE|THIS) PROJECT GUTENBERG|End of (?:the |this )?Project Gutenberg)",
    re.I | re.M,
)
_MOJIBAKE = re.compile("[ÂÃ][\x80-\xbf]|â(?:\x80|€)")


def decode_book(content: bytes) -> str:
    """UTF-8 where it is, else Windows' Latin-1, the two that Gutenberg's files come in; UTF-8 that was once
    read as Latin-1 and stored again is undone.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace") if not _undefined(content) else content.decode("latin-1")
    if _MOJIBAKE.search(text):
        for encoding in ("cp1252", "latin-1"):
            try:
                text = text.encode(encoding).decode("utf-8")
                break
            except UnicodeError:
                continue
    return text.replace("\r\n", "\n").replace("\r", "\n")


def strip_matter(text: str) -> str:
    """The book between Gutenberg's START and END markers; where one is absent, from the beginning or to the
    end.
    """
    start = _START.search(text) or _START_OPEN.search(text)
    if start is None:
        start = _OLD_START.search(text)
    begin = start.end() if start else 0
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


def _undefined(content: bytes) -> bool:
    """True for bytes that Windows' Latin-1 has no character for."""
    return any(byte in content for byte in (b"\x81", b"\x8d", b"\x8f", b"\x90", b"\x9d"))
