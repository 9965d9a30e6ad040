"""Tokens: those of tiktoken and the book, a function of the text alone, and back to the same text."""

import base64
import json
import re
import time
from functools import cache
from itertools import islice, pairwise

import numpy as np
import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext.openai_public import r50k_pat_str

from gpt_pretrain.config import TokenizerConfig
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.tokenizer import (
    SEGMENT,
    TOKENIZER_FILE,
    build_tokenizer,
    byte_lengths,
    count_pieces,
    decode,
    learn_ranks,
    load_tokenizer,
    segmentation,
    segments,
    tokenizer_files,
    tokenizer_fingerprint,
)
from gpt_pretrain.tokenizer.bpe import ENCODINGS, gpt2_ranks
from gpt_pretrain.tokenizer.patterns import FASTER
from gpt_pretrain.tokenizer.segmentation import BEFORE_ANY_SPACE, BEFORE_PLAIN_SPACE

# A character of each plane that has any, the ends of each UTF-8 length, and what splits words.
PLANES = "a\x7f\x80\u07ff\u0800\ud7ff\ue000\ufffd\uffff\U00010000\U0001f600\U00020000\U00030000\U000e0001"
PLANES += "\U000f0000\U0010ffff"
TRICKY = st.text(st.sampled_from(list("ab'sl19!. \n\r\t\x0b\x1c\x85\xa0\u2028\u3000é漢") + list(PLANES)))
ANY_TEXT = st.one_of(TRICKY, st.text())


@pytest.fixture(scope="module")
def alone():
    """tiktoken with GPT-2's ranks, not through our classes."""
    special = {"<|endoftext|>": 50256}
    return tiktoken.Encoding(
        "alone", pat_str=r50k_pat_str, mergeable_ranks=gpt2_ranks(), special_tokens=special
    )


@pytest.fixture
def small_segments(monkeypatch):
    """Segments of 16 characters, so that short texts are cut."""
    monkeypatch.setattr(segmentation, "SEGMENT", 16)


def tokenizers():
    text = "".join(map(chr, range(0x250))) + PLANES + "漢\u2028\u3000"
    return [
        build_tokenizer("gpt2"),
        build_tokenizer("bytes"),
        build_tokenizer(
            "trained", learn_ranks(count_pieces(["'ll the then  there\n\n é漢 é漢 19 19"] * 2), 290)
        ),
        build_tokenizer(TokenizerConfig(name="characters"), text),
    ]


def test_the_book_s_token_ids():
    encode = build_tokenizer("gpt2").encode
    assert encode("Every effort moves you").tolist() == [6109, 3626, 6100, 345]
    assert encode("Hello, I am").tolist() == [15496, 11, 314, 716]
    text = "Hello, do you like tea? <|endoftext|> In the sunlit terracesof someunknownPlace."
    expected = "15496 11 466 345 588 8887 30 220 50256 554 262 4252 18250 8812 2114 1659 617 34680 27271 13"
    assert encode(text, allow_special=True).tolist() == [int(word) for word in expected.split()]


@pytest.mark.parametrize("tokenizer", tokenizers(), ids=lambda t: t.name)
def test_end_of_text_in_a_text_stays_text_unless_asked(tokenizer):
    text = "a<|endoftext|>b"
    assert tokenizer.end_of_text_id not in tokenizer.encode(text)
    assert (tokenizer.encode(text, allow_special=True) == tokenizer.end_of_text_id).sum() == 1
    for allow_special in (False, True):
        assert decode(tokenizer, tokenizer.encode(text, allow_special=allow_special).tolist()) == text


@pytest.mark.parametrize("tokenizer", tokenizers()[:2], ids=lambda t: t.name)
@settings(max_examples=60, deadline=None)
@given(text=st.text())
def test_text_of_every_plane_comes_back(tokenizer, text):
    for sample in (text, PLANES + text):
        assert decode(tokenizer, tokenizer.encode(sample).tolist()) == sample


@pytest.mark.parametrize("tokenizer", tokenizers(), ids=lambda t: t.name)
def test_lone_surrogates_become_the_replacement_character_and_pairs_are_joined(tokenizer):
    assert decode(tokenizer, tokenizer.encode("a\ud800b\udc00").tolist()) == "a\ufffdb\ufffd"
    assert decode(tokenizer, tokenizer.encode("\ud83d\ude00").tolist()) == "\U0001f600"


@settings(max_examples=150, deadline=None)
@given(text=ANY_TEXT)
def test_gpt2_gives_the_tokens_of_tiktoken_alone(alone, text):
    assert build_tokenizer("gpt2").encode(text).tolist() == alone.encode_ordinary(text)


@settings(max_examples=300, deadline=None)
@given(text=TRICKY, place=st.integers(0, 200))
def test_a_cut_at_a_safe_place_changes_no_token(alone, text, place):
    safe = [match.start() for match in BEFORE_ANY_SPACE.finditer(text)]
    if safe:
        cut = safe[place % len(safe)]
        both = alone.encode_ordinary(text[:cut]) + alone.encode_ordinary(text[cut:])
        assert both == alone.encode_ordinary(text)


@pytest.mark.parametrize("name", ["gpt2", "cl100k_base", "o200k_base"])
@settings(max_examples=300, deadline=None)
@given(text=st.one_of(TRICKY, st.text(st.sampled_from("aB'sll1 \n\r\t\u3000."), min_size=20), st.text()))
def test_the_faster_pattern_cuts_the_same_pieces(name, text):
    pattern, _ = ENCODINGS[name]
    assert regex.findall(FASTER[pattern], text) == regex.findall(pattern, text)


@cache
def pairing(name):
    """The published pattern with a vocabulary of letter pairs, whose merges show where the pieces end."""
    pattern, _ = ENCODINGS[name]
    singles = [bytes([byte]) for byte in range(256)]
    letters = [bytes([byte]) for byte in b"ab'sl19!. \n\r\t"]
    tokens = singles + [first + second for first in letters for second in letters]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base"])
@settings(max_examples=150, deadline=None)
@given(text=TRICKY, place=st.integers(0, 200))
def test_a_cut_before_a_plain_space_is_safe_for_the_later_patterns_too(name, text, place):
    encoding = pairing(name)
    safe = [match.start() for match in BEFORE_PLAIN_SPACE.finditer(text)]
    if safe:
        cut = safe[place % len(safe)]
        both = encoding.encode_ordinary(text[:cut]) + encoding.encode_ordinary(text[cut:])
        assert both == encoding.encode_ordinary(text)


@settings(max_examples=200, deadline=None)
@given(text=TRICKY, cuts=st.lists(st.integers(0, 300), max_size=8))
def test_segments_do_not_depend_on_how_the_text_was_chunked(text, cuts):
    text = text * 3
    original, segmentation.SEGMENT = segmentation.SEGMENT, 16
    try:
        places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
        pieces = [text[a:b] for a, b in pairwise(places)]
        whole = list(segments([text], BEFORE_ANY_SPACE))
        assert list(segments(pieces, BEFORE_ANY_SPACE)) == whole
        assert list(segments(list(text), BEFORE_ANY_SPACE)) == whole
        assert "".join(whole) == text
        assert all(len(segment) <= 16 for segment in whole)
    finally:
        segmentation.SEGMENT = original


def test_a_run_without_a_safe_place_is_cut_where_a_segment_is_full(small_segments):
    cut = segments(["a " + "b" * 40], BEFORE_ANY_SPACE)
    assert list(islice(cut, 9)) == ["a", " " + "b" * 15, "b" * 16, "b" * 9]


def test_cut_segments_give_the_tokens_of_the_uncut_text(alone, small_segments):
    text = "It's 3 o'clock,\n\n  and   all's well!  \t\n" * 20
    assert len(list(segments([text], BEFORE_ANY_SPACE))) > 40
    assert build_tokenizer("gpt2").encode(text).tolist() == alone.encode_ordinary(text)


@pytest.mark.parametrize("character", [*"a 1!\n\t", "é", "\U0001f600", "\x1c"])
def test_a_million_equal_characters_come_back_in_linear_time(character):
    tokenizer = build_tokenizer("gpt2")

    def seconds(n):
        started = time.process_time()
        ids = tokenizer.encode(character * n + "x")
        taken = time.process_time() - started
        assert tokenizer.decode_bytes(ids.tolist()) == (character * n + "x").encode()
        return taken

    # Four times the text takes four times as long, sixteen if it were quadratic: ten leaves room for noise.
    assert seconds(1_000_000) < max(0.5, 10 * min(seconds(250_000) for _ in range(3)))


def test_segments_are_as_long_as_documented():
    assert [len(s) for s in segments(["x" * (2 * SEGMENT + 5)], BEFORE_ANY_SPACE)] == [SEGMENT, SEGMENT, 5]


def test_characters_are_numbered_as_nanogpt_s_shakespeare_does():
    text = "hello there"
    stoi = {ch: i for i, ch in enumerate(sorted(set(text)))}  # nanoGPT, data/shakespeare_char/prepare.py
    tokenizer = build_tokenizer(TokenizerConfig(name="characters"), text)
    assert tokenizer.encode(text).tolist() == [stoi[c] for c in text]
    assert (tokenizer.end_of_text_id, tokenizer.vocab_size) == (len(stoi), len(stoi) + 1)
    with pytest.raises(InputError, match="lacks 'z'"):
        tokenizer.encode("zebra")


def ranks_file(tmp_path, content=None):
    path = tmp_path / "ranks.tiktoken"
    ranks = [bytes([byte]) for byte in range(256)] + [b"he", b"ll", b"hell", b"hello", b" hello"]
    lines = [base64.b64encode(token) + b" %d" % rank for rank, token in enumerate(ranks)]
    path.write_bytes(b"\n".join(lines) if content is None else content)
    return path


def extra(name, tmp_path, **more):
    """A tokenizer of each kind that has a file, small."""
    if name == "tiktoken":
        more |= {"path": str(ranks_file(tmp_path)), "encoding": "cl100k_base"}
    elif name == "huggingface":
        tokenizers = pytest.importorskip("tokenizers")
        learned = tokenizers.ByteLevelBPETokenizer()
        learned.train_from_iterator(["hello there, hello world, 漢字 été"] * 5, vocab_size=300)
        learned.add_special_tokens(["</s>"])
        path = tmp_path / "tokenizer.json"
        learned.save(str(path))
        more |= {"path": str(path), "end_of_text": "</s>"}
    learned = (
        learn_ranks(count_pieces(["hello there, hello world"]), 270)
        if name == "trained"
        else "helo wrd,漢字été<|x>"
    )
    return build_tokenizer(TokenizerConfig(name=name, **more), learned)


ALL = ["gpt2", "tiktoken", "trained", "bytes", "characters", "huggingface"]


@pytest.mark.parametrize("name", ALL)
def test_extra_special_tokens_get_ids_of_their_own_above_the_vocabulary(name, tmp_path):
    plain, more = extra(name, tmp_path), extra(name, tmp_path, special_tokens=["<|x|>"])
    assert more.vocab_size == plain.vocab_size + 1
    assert more.encode("hello<|x|>", allow_special=True)[-1] == plain.vocab_size
    assert plain.vocab_size not in more.encode("hello<|x|>")
    assert decode(more, [plain.vocab_size]) == "<|x|>"
    assert tokenizer_fingerprint(plain) != tokenizer_fingerprint(more)


@pytest.mark.parametrize("name", ALL)
def test_a_tokenizer_travels_in_its_files_and_transformers_reads_them(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = extra(name, tmp_path, special_tokens=["<|x|>"])
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for file, content in tokenizer_files(tokenizer).items():
        (folder / file).write_bytes(content)
    text = "hello world, 漢字 hello"
    loaded = load_tokenizer(folder)
    assert loaded.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert (loaded.vocab_size, loaded.end_of_text_id) == (tokenizer.vocab_size, tokenizer.end_of_text_id)
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert theirs.encode(text) == tokenizer.encode(text).tolist()
    assert theirs.encode("<|x|>") == [tokenizer.vocab_size - 1]
    assert theirs.decode(tokenizer.encode(text).tolist()) == text
    assert theirs.eos_token_id == tokenizer.end_of_text_id


def test_a_ranks_file_gives_the_tokens_of_tiktoken_with_the_published_pattern(tmp_path):
    public = __import__("tiktoken_ext.openai_public", fromlist=["cl100k_base"])
    assert ENCODINGS["gpt2"][0] == r50k_pat_str
    for name in ("cl100k_base", "o200k_base"):
        public.load_tiktoken_bpe, original = (lambda *args, **kwargs: {}), public.load_tiktoken_bpe
        try:
            published = getattr(public, name)()
        finally:
            public.load_tiktoken_bpe = original
        assert ENCODINGS[name] == (published["pat_str"], published["special_tokens"])
    tokenizer = extra("tiktoken", tmp_path)
    assert tokenizer.encode(" hello hello").tolist() == [260, 260]


def test_byte_lengths_add_up_to_the_text_s_bytes(tmp_path):
    for name in ALL:
        tokenizer = extra(name, tmp_path)
        text = "hello world, 漢字 été hello"
        assert byte_lengths(tokenizer)[tokenizer.encode(text)].sum() == len(text.encode())
        assert byte_lengths(tokenizer)[tokenizer.end_of_text_id] == 0


@pytest.mark.parametrize(
    ("settings", "content", "error", "message"),
    [
        ({"name": "tiktoken"}, b"not a ranks file", ArtifactError, "line 1 is"),
        ({"name": "tiktoken"}, b"aGU= 0", ArtifactError, "lacks 256 of the 256 single bytes"),
        ({"name": "tiktoken", "path": "/nowhere"}, b"", InputError, "tokenizer.path=/nowhere cannot be read"),
        ({"name": "huggingface"}, b"{}", ArtifactError, "is no tokenizer"),
        ({"name": "huggingface"}, b"\xff\x00", ArtifactError, "is no tokenizer"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_named(tmp_path, settings, content, error, message):
    path = ranks_file(tmp_path, content)
    with pytest.raises(error, match=re.escape(message)):
        build_tokenizer(TokenizerConfig(**{"path": str(path), **settings}))


def test_a_checkpoint_with_a_damaged_tokenizer_is_an_artifact_error(tmp_path):
    (tmp_path / TOKENIZER_FILE).write_text(json.dumps({"name": "bytes"}))
    with pytest.raises(ArtifactError, match="its tokenizer cannot be read"):
        load_tokenizer(tmp_path)


def test_tokens_fit_the_type_they_are_stored_in():
    assert build_tokenizer("gpt2").encode("").dtype == np.uint32
    assert build_tokenizer("gpt2").vocab_size <= 1 << 16


@pytest.mark.parametrize("name", ["bytes", "characters", "gpt2", "trained"])
def test_the_end_of_text_may_be_named_among_the_special_tokens(name):
    learned = {"characters": "abc", "trained": learn_ranks(count_pieces(["abc"]), 256)}.get(name)
    config = TokenizerConfig(name=name, special_tokens=["<|endoftext|>", "<|more|>"])
    tokenizer = build_tokenizer(config, learned)
    ids = tokenizer.encode("a<|endoftext|>b<|more|>", allow_special=True)
    assert ids[1] == tokenizer.end_of_text_id < ids[3] == tokenizer.vocab_size - 1


@pytest.mark.parametrize("n_ranks", [256, 300, 50_254, 50_255, 50_256])
def test_a_trained_vocabulary_has_no_hole(n_ranks):
    ranks = {n.to_bytes(3, "big"): n for n in range(256, n_ranks)} | {bytes([n]): n for n in range(256)}
    tokenizer = build_tokenizer(TokenizerConfig(name="trained"), ranks)
    assert (tokenizer.end_of_text_id, tokenizer.vocab_size) == (n_ranks, n_ranks + 1)


def test_halves_of_characters_do_not_join_in_an_alphabet():
    tokenizer = build_tokenizer(TokenizerConfig(name="characters"), "a\ud83d\ude00")
    assert tokenizer.encode("a\ud83d a".replace(" ", "")).tolist() == [0, 1, 0]
