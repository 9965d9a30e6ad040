"""Where a text may be cut so that its tokens do not depend on how it was read.

A text is tokenized in segments of at most `SEGMENT` characters, each ending at the last safe place: before a
whitespace character that follows another kind. GPT-2's pattern never joins the two into one piece and looks
no further back, so there the tokens are those of the uncut text. A run without a safe place is cut at
`SEGMENT` characters, which bounds memory and time for a million equal characters; only there can tokens
differ from those of the uncut text. Segments follow from the text alone.
"""

import re
from collections.abc import Iterable, Iterator

SEGMENT = 1 << 18  # characters

# Unicode's White_Space, which is what \s means in tiktoken's patterns (Python's own \s has four more).
_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
BEFORE_ANY_SPACE = re.compile(f"(?<=[^{_SPACE}])[{_SPACE}]")
# Later patterns let punctuation take the line ends that follow, so only the plain space is safe.
BEFORE_PLAIN_SPACE = re.compile(f"(?<=[^{_SPACE}]) ")


def segments(pieces: Iterable[str], safe: re.Pattern[str]) -> Iterator[str]:
    """The text that `pieces` make up, in segments; the same ones for any pieces of the same text."""
    buffer = ""
    for piece in pieces:
        buffer += piece
        start = 0
        while len(buffer) - start > SEGMENT:  # so a space right behind a full segment is seen
            end = _last_safe(buffer, start, safe)
            yield buffer[start:end]
            start = end
        buffer = buffer[start:]
    if buffer:
        yield buffer


def _last_safe(text: str, start: int, safe: re.Pattern[str]) -> int:
    """Where the segment that begins at `start` ends; the text goes on beyond start + SEGMENT."""
    limit = start + SEGMENT
    # The end is searched first, and the whole segment where there is no safe place in it. Never before
    # start + 1, since a segment shorter than the reach could come out empty.
    for reach in (1 << 10, SEGMENT - 1):
        found = [match.start() for match in safe.finditer(text, max(start + 1, limit - reach), limit + 1)]
        if found:
            return found[-1]
    return limit
