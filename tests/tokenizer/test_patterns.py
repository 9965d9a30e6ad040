"""A pattern cuts the same pieces in the programs that read a checkpoint's tokenizer.json."""

from functools import cache

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_pretrain.tokenizer.bpe import ENCODINGS, BPETokenizer
from gpt_pretrain.tokenizer.patterns import for_oniguruma


@cache
def split_by_tokenizers(pattern):
    """What the engine behind a tokenizer.json makes of a pattern."""
    library = pytest.importorskip("tokenizers")
    return library.pre_tokenizers.Split(library.Regex(pattern), "isolated")


OWN_PATTERN = r"\p{N}{2}+|(?:ab?|(\[{1,2}+)){1,2}+|[\]{1}+x]{2}+|[^\s]{1,4}+|\s++"


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in ENCODINGS.values()] + [OWN_PATTERN])
@settings(max_examples=300, deadline=None)
@given(text=st.one_of(st.text("0123456789 ab"), st.text("19٣½aB'sſß[]x1{+ \n\u3000")))
def test_a_pattern_cuts_the_same_pieces_for_tokenizers(pattern, text):
    pieces = split_by_tokenizers(for_oniguruma(pattern)).pre_tokenize_str(text)
    assert [piece for piece, _ in pieces] == [match.group() for match in regex.finditer(pattern, text)]


def test_only_possessive_intervals_are_written_otherwise_for_tokenizers():
    for pattern in (
        r"\x{41}+",
        r"\p{N}{1,3}",
        r"a++",
        r"\{3}+",
        ENCODINGS["gpt2"][0],
        ENCODINGS["o200k_base"][0],
    ):
        assert for_oniguruma(pattern) == pattern
    assert for_oniguruma(r"\p{N}{1,3}+") == r"(?>\p{N}{1,3})"


def test_long_numbers_have_the_same_tokens_in_transformers():
    library = pytest.importorskip("tokenizers")
    numbers = [b"%d" % n for n in range(10, 1000)]
    ranks = {token: rank for rank, token in enumerate([bytes([byte]) for byte in range(256)] + numbers)}
    pattern, _ = ENCODINGS["cl100k_base"]
    tokenizer = BPETokenizer("tiktoken cl100k_base", ranks, pattern, {"<|endoftext|>": len(ranks)})
    theirs = library.Tokenizer.from_str(tokenizer.files()["tokenizer.json"].decode())
    text = " 1234567 12345678"
    assert theirs.encode(text).ids == tokenizer.encode(text).tolist()
