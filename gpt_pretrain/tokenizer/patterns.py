"""How the published byte-level encodings cut a text into pieces, within which alone bytes are merged.

Source: tiktoken_ext/openai_public.py of tiktoken.
"""

import re

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
    r"|\s*[\r\n]|\s+(?!\S)|\s"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_O200K_PLAIN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDING}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+"
)
O200K = rf"{_O200K_PLAIN}|\s+(?!\S)|\s+"

# The same pieces in words that tiktoken's regex engine finds up to twice as fast. It runs a finite automaton
# where nothing looks ahead, but over a group as a whole only if it stands in brackets and no quantifier in it
# is possessive (`++`). Here those save backtracking and change no match: no class holds what may follow it.
# Where a text ends, `\s+(?!\S)` does what GPT-2's `\s++$` does.
FASTER = {
    GPT2: r"(?:'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+)|\s+(?!\S)|\s",
    CL100K: (
        r"(?:'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+$"
        r"|\s*[\r\n])|\s+(?!\S)|\s"
    ),
    O200K: rf"(?:{_O200K_PLAIN})|\s+(?!\S)|\s+",
}

_PART = re.compile(
    r"(?P<atom>\\[pPxu]\{[^}]*\}|\\.|\[\^?\]?(?:\\.|\[(?:\\.|[^\\\]])*\]|[^\\\]])*\]|.)"
    r"(?P<interval>\{\d+(?:,\d*)?\}\+)?",
    re.DOTALL,
)


def for_oniguruma(pattern: str) -> str:
    """The same pattern for the regex engine that reads a tokenizer.json, to which `x{1,3}+` is `(?:x{1,3})+`.

    Such an interval becomes `(?>x{1,3})`; `x++` is possessive there too.
    """
    written, opened = "", [0]
    for part in _PART.finditer(pattern):
        atom, interval = part["atom"], part["interval"]
        begins = opened.pop() if atom == ")" and len(opened) > 1 else len(written)
        if atom == "(":
            opened.append(begins)
        written += atom
        if interval is not None:
            written = f"{written[:begins]}(?>{written[begins:]}{interval[:-1]})"
    return written
