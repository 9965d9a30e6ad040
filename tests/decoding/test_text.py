"""Text around the loop: pieces, stop texts, biases, banned texts."""

import random

import numpy as np
import pytest
import torch

from gpt_pretrain.config import DecodingConfig, ModelConfig
from gpt_pretrain.decoding.text import (
    BannedTexts,
    TextPieces,
    encode,
    generate_text,
    generate_texts,
    stop_rule,
    stream_text,
    text_rules,
    written,
)
from gpt_pretrain.errors import InputError
from gpt_pretrain.model import GPTModel
from gpt_pretrain.tokenizer import build_tokenizer

BYTES, GPT2 = build_tokenizer("bytes"), build_tokenizer("gpt2")


@pytest.fixture(scope="module")
def writer():
    """A random model of bytes that writes letters, spaces and half characters."""
    torch.manual_seed(0)
    model = GPTModel(ModelConfig(vocab_size=257, context_length=40, emb_dim=16, n_heads=2, n_layers=1)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def sampled(**settings):
    return DecodingConfig(max_new_tokens=60, temperature=1.2, **settings)


def test_pieces_are_whole_characters_and_add_up():
    text = "naïve 🐘 é"
    pieces = TextPieces([])
    given = [piece for byte in text.encode() for piece in pieces.add(bytes([byte]))]
    assert given == list(text)
    assert list(pieces.end()) == []


def test_half_a_character_at_the_end_becomes_a_replacement_character():
    pieces = TextPieces([])
    assert list(pieces.add("é".encode()[:1])) == []
    assert list(pieces.end()) == ["\N{REPLACEMENT CHARACTER}"]


def test_nothing_of_a_stop_text_is_ever_shown():
    rng = random.Random(0)
    for _ in range(500):
        text = "".join(rng.choice("abc") for _ in range(rng.randint(0, 20)))
        stops = ["".join(rng.choice("abc") for _ in range(rng.randint(1, 4))) for _ in range(2)]
        cuts = [text.find(stop) for stop in stops if stop in text]
        pieces, shown = TextPieces(stops), ""
        for character in text:
            shown += "".join(pieces.add(character.encode()))
            if not pieces.stop:
                break
        shown += "".join(pieces.end())
        assert shown == text[: min(cuts, default=len(text))] or _first_complete(text, stops) == shown


def test_a_replacement_character_as_stop_text_stands_for_itself_not_for_bytes_that_are_no_text():
    pieces = TextPieces(["\ufffd"])
    given = [piece for byte in b"a\xffb\xef\xbf\xbd" for piece in pieces.add(bytes([byte]))]
    assert "".join([*given, *pieces.end()]) == "a\ufffdb"


def _first_complete(text, stops):
    """What stands before the stop text that is complete first: a longer one may have begun earlier."""
    for end in range(len(text) + 1):
        found = [text[:end].find(stop) for stop in stops if stop in text[:end]]
        if found:
            return text[: min(found)]
    return text


def test_the_stream_is_the_text_whatever_the_settings(writer):
    for seed in range(5):
        for settings in ({}, {"stop": ["e", "\u00e9"]}, {"top_k": 30}, {"num_beams": 3}):
            config = sampled(seed=seed, **settings)
            streamed = "".join(stream_text(writer, BYTES, "ab", config))
            assert streamed == generate_text(writer, BYTES, "ab", config)


def test_a_stop_text_ends_its_row_only(writer):
    config = sampled(seed=3)
    prompts = ["a", "bcd", "zz"]
    free = [written(BYTES, row, config) for [row] in generate_texts(writer, BYTES, prompts, config)]
    stop = next(character for character in free[0] if character not in free[1])
    stopping = sampled(seed=3, stop=stop)
    rows = [row for [row] in generate_texts(writer, BYTES, prompts, stopping)]
    assert written(BYTES, rows[0], stopping) == free[0][: free[0].index(stop)]
    assert rows[0].finish_reason == "stop"
    assert written(BYTES, rows[1], stopping) == free[1]


def test_a_stop_text_is_found_across_tokens():
    stop = stop_rule(GPT2, DecodingConfig(stop="lo wor"))
    tokens = encode(GPT2, "hello world")
    assert len(tokens) == 2
    assert not stop(tokens[:1])
    assert stop(tokens)


def test_a_banned_text_never_comes_however_the_tokens_cut_it(writer):
    texts = [generate_text(writer, BYTES, "ab", sampled(top_k=100, seed=seed)) for seed in range(8)]
    pairs = sorted({text[at : at + 2] for text in texts for at in range(len(text) - 1)})
    pairs = [pair for pair in pairs if pair.isascii()]
    for seed in range(8):
        config = sampled(top_k=100, seed=seed, banned_words=pairs)
        text = generate_text(writer, BYTES, "ab", config)
        assert not [pair for pair in pairs if pair in text]


def test_banning_rules_out_every_token_that_would_complete_the_text():
    rule = BannedTexts(GPT2, ["cat"])
    history = [encode(GPT2, "the ca"), encode(GPT2, "the")]
    changed = rule(torch.zeros(2, GPT2.vocab_size), history, [0, 0])
    assert changed[0, encode(GPT2, "t")[0]] == changed[0, encode(GPT2, "te")[0]] == -torch.inf
    assert changed[1, encode(GPT2, "t")[0]] == 0
    for token in (" cat", "cat", " catalog"):
        assert changed[1, encode(GPT2, token)[0]] == -torch.inf


@pytest.mark.parametrize("word", ["cat", "e", " ", "==", "aaa", "é", "not in the vocabulary"])
def test_what_banning_rules_out_is_what_a_search_of_the_whole_vocabulary_finds(word):
    vocabulary = [GPT2.decode_bytes([id_]) for id_ in range(GPT2.vocab_size - 1)]  # without the end of text
    word = word.encode()
    expected = {b"": {id_ for id_, token in enumerate(vocabulary) if word in token}}
    for cut in range(1, len(word)):
        found = {id_ for id_, token in enumerate(vocabulary) if token.startswith(word[cut:])}
        expected[word[:cut]] = expected.get(word[:cut], set()) | found
    completing = BannedTexts(GPT2, [word.decode()]).completing
    assert {beginning: set(ids.tolist()) for beginning, ids in completing.items()} == expected


def test_the_vocabulary_is_read_once_however_often_banned_words_are_asked_for(monkeypatch):
    tokenizer, read = build_tokenizer("bytes"), []
    own = tokenizer.decode_bytes
    monkeypatch.setattr(tokenizer, "decode_bytes", lambda ids: read.append(ids) or own(ids))
    for words in (["a", "bc"], ["a", "bc"], ["d"]):
        text_rules(tokenizer, DecodingConfig(banned_words=words))
    assert len(read) == tokenizer.vocab_size - 1


@pytest.mark.parametrize("tokenizer", [BYTES, GPT2])
def test_banning_a_text_leaves_the_end_of_text_alone(tokenizer):
    for word in ("end", "<", "text|>"):
        changed = BannedTexts(tokenizer, [word])(torch.zeros(1, tokenizer.vocab_size), [[]], [0])
        assert changed[0, tokenizer.end_of_text_id] == 0


def test_ids_that_the_tokenizer_lacks_are_never_chosen():
    torch.manual_seed(0)
    padded = GPTModel(ModelConfig(vocab_size=320, context_length=40, emb_dim=16, n_heads=2, n_layers=1))
    for settings in ({}, {"num_beams": 2}, {"penalty_alpha": 0.5, "top_k": 30}):
        [[row]] = generate_texts(padded.eval(), BYTES, ["ab"], sampled(**settings))
        assert max(row.token_ids) < BYTES.vocab_size


def test_a_bias_given_as_text_falls_on_its_token(writer):
    text = generate_text(writer, BYTES, "ab", sampled(logit_bias={"q": 1000.0}))
    assert text == "q" * 60


def test_a_bias_on_a_text_without_a_token_is_refused(writer, monkeypatch):
    monkeypatch.setattr(
        BYTES, "encode_segment", lambda text, **_: np.frombuffer(text.strip().encode(), np.uint8)
    )
    with pytest.raises(InputError, match=r"decoding\.logit_bias: tokenizer=bytes makes no token of ' '"):
        generate_text(writer, BYTES, "ab", sampled(logit_bias={" ": 1.0}))


def test_text_that_is_none_becomes_replacement_characters():
    for text in (b"a\xff".decode("utf-8", "surrogateescape"), "a\ud83d"):
        assert encode(BYTES, text) == [97, 0xEF, 0xBF, 0xBD]
