"""Byte pairs learned from a text: those that the tokenizers library learns."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_pretrain.data.python_reference import PythonReference
from gpt_pretrain.tokenizer.learn import count_pieces, learn_ranks
from gpt_pretrain.tokenizer.protocol import printable_bytes

WORDS = st.lists(
    st.sampled_from(["the", " then", " banana", "aaaa", " aa", "\n\n", "  ", "é漢é漢", "ab" * 9]), max_size=60
)


def theirs(texts, n_ranks):
    tokenizers = pytest.importorskip("tokenizers")
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=n_ranks, min_frequency=2, initial_alphabet=byte_level.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    byte_of = {stand_in: byte for byte, stand_in in enumerate(printable_bytes())}
    return {bytes(byte_of[c] for c in token): id_ for token, id_ in tokenizer.get_vocab().items()}


@settings(max_examples=60, deadline=None)
@given(WORDS)
def test_any_text_gives_the_library_s_tokens(words):
    text = "".join(words)
    assert learn_ranks(count_pieces([text]), 300) == theirs([text], 300)


def test_two_thousand_tokens_of_the_python_reference_are_the_library_s():
    texts = PythonReference().topics
    ranks = learn_ranks(count_pieces(texts), 2047)
    assert ranks == theirs(texts, 2047)
    assert len(ranks) == 2047
    assert b" statement" in ranks


def test_a_text_without_repeats_gives_bytes_alone():
    assert sorted(learn_ranks(count_pieces(["abcdefg"]), 1000)) == [bytes([byte]) for byte in range(256)]
    assert len(learn_ranks({}, 1000)) == 256


def test_a_piece_of_a_million_characters_is_learned_from_in_seconds():
    assert len(learn_ranks(count_pieces(["x" * 10**6]), 300)) == 264  # 2, 4, ... 256 of them


def test_of_a_text_without_spaces_the_beginning_is_learned_from():
    read = []

    def texts():
        for number in range(100):
            read.append(number)
            yield "".join(chr(0x4E00 + (number * 1000 + k) % 20000) for k in range(1000))

    counts = count_pieces(texts(), distinct=9000)
    assert read == [0, 1, 2, 3]  # of 3,000 bytes each
    assert sum(len(piece) * count for piece, count in counts.items()) == 12_000
    again = count_pieces(["the same words once more"] * 1000, distinct=100)
    assert again[b" words"] == 1000
