"""Text that cannot command a terminal. What a model wrote, or what came from a file, is foreign."""

import textwrap
import unicodedata
from typing import TextIO

# Format characters that are part of how languages are written: joiners, and signs that enclose numbers.
_WRITTEN = {0x200C, 0x200D, *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}


class _Shown(dict[int, str]):
    """For str.translate: control and format characters, line separators and lone surrogates as escapes."""

    def __missing__(self, code: int) -> str:
        shown = character = chr(code)
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and code not in _WRITTEN:
            shown = character.encode("unicode_escape").decode()
        self[code] = shown
        return shown


_SHOWN = _Shown({ord("\n"): "\n", ord("\t"): "\t"})


def printable(text: str) -> str:
    r"""Foreign text, safe to show: \x1b and all else that a terminal would obey as visible escapes.

    Line ends and tabs stay.
    """
    return text.translate(_SHOWN)


INDENT = 8  # columns: a line that says much has a word before it


def folded(text: str, width: int, head: str = "") -> str:
    """Lines that are longer than `width` on several, cut between words and indented below the first.

    `head`, before the text, is never cut.
    """

    def fold(line: str, head: str) -> str:
        if len(head + line) <= width:
            return head + line
        wrapper = textwrap.TextWrapper(width, head, INDENT * " ", break_long_words=False)
        wrapper.break_on_hyphens = False
        return wrapper.fill(line)

    first, *others = text.split("\n")
    return "\n".join([fold(first, head), *(fold(line, "") for line in others)])


def show(text: object = "", *, end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
    """`print` for text that may be foreign, as is most of what a program of language models prints."""
    print(printable(str(text)), end=end, file=file, flush=flush)
