"""What the tokens of a `tokenizer.json` write: what transformers writes, or a refusal."""

import json
import time
import tracemalloc

import pytest

from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.tokenizer import byte_lengths, decode
from gpt_pretrain.tokenizer.tokenizer_json import HuggingFaceTokenizer

tokenizers = pytest.importorskip("tokenizers")
TEXT = "the cats sat, on the mat. the catnip"
END, UNKNOWN = "[SEP]", "[UNK]"


def learned(model, trainer, cut, decoder, **options):
    whole = tokenizers.Tokenizer(getattr(tokenizers.models, model)(**options))
    whole.pre_tokenizer = cut
    if decoder is not None:
        whole.decoder = decoder
    train = getattr(tokenizers.trainers, trainer)
    special = {"special_tokens": [UNKNOWN, END], "show_progress": False}
    whole.train_from_iterator(
        ["the cat sat on the mat, cats", "a hit. the cap"], train(vocab_size=60, **special)
    )
    return whole


def word_piece(decoder):
    cut = tokenizers.pre_tokenizers.BertPreTokenizer()
    return learned("WordPiece", "WordPieceTrainer", cut, decoder, unk_token=UNKNOWN)


def word_level():
    cut = tokenizers.pre_tokenizers.Whitespace()
    return learned("WordLevel", "WordLevelTrainer", cut, None, unk_token=UNKNOWN)


def metaspace(decoder, scheme="always"):
    cut = tokenizers.pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return learned("BPE", "BpeTrainer", cut, decoder, unk_token=UNKNOWN)


def llama():
    """As its tokenizer.json has it: the normalizer sets the marks, bytes stand in for unknown characters."""
    steps = tokenizers.decoders
    whole = metaspace(
        steps.Sequence([steps.Replace("▁", " "), steps.ByteFallback(), steps.Fuse(), steps.Strip(" ", 1, 0)])
    )
    changed = json.loads(whole.to_str())
    changed["pre_tokenizer"] = None
    changed["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    vocab = changed["model"]["vocab"]
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    changed["model"] |= {"byte_fallback": True, "fuse_unk": True}
    return tokenizers.Tokenizer.from_str(json.dumps(changed))


DECODERS = {
    "word pieces": lambda: word_piece(tokenizers.decoders.WordPiece()),
    "word pieces, not cleaned up": lambda: word_piece(tokenizers.decoders.WordPiece(cleanup=False)),
    "word pieces without a decoder": lambda: word_piece(None),
    "words": word_level,
    "Metaspace": lambda: metaspace(tokenizers.decoders.Metaspace()),
    "Metaspace at no beginning": lambda: metaspace(
        tokenizers.decoders.Metaspace(prepend_scheme="never"), "never"
    ),
    "Llama's": llama,
}


def ours(whole, end=END):
    return HuggingFaceTokenizer(whole.to_str().encode(), end)


@pytest.mark.parametrize("name", DECODERS)
def test_tokens_write_what_transformers_writes_but_for_the_space_before_the_first(name):
    transformers = pytest.importorskip("transformers")
    whole = DECODERS[name]()
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=whole, clean_up_tokenization_spaces=False)
    found = ours(whole)
    ids = found.encode(TEXT).tolist()
    assert ids == theirs.encode(TEXT, add_special_tokens=False)
    text = theirs.decode(ids)
    assert decode(found, ids).removeprefix(" ") == text
    # One after another, as they are written when a model makes them.
    assert b"".join(found.decode_bytes([id_]) for id_ in ids).removeprefix(b" ") == text.encode()
    assert byte_lengths(found)[ids[1:]].sum() == len(theirs.decode(ids)) - len(theirs.decode(ids[:1]))
    # Every token of the vocabulary behind another, but for those that a text names and bytes alone.
    for token, id_ in whole.get_vocab().items():
        if token != END and not token.startswith("<0x"):
            assert theirs.decode([ids[0], id_]) == theirs.decode(ids[:1]) + decode(found, [id_])


def test_the_sentence_of_the_first_report_comes_back_word_by_word():
    text = "the cat sat on the mat."
    for name in ("word pieces", "Metaspace", "Llama's"):
        found = ours(DECODERS[name]())
        assert decode(found, found.encode(text).tolist()).strip() == text
        assert byte_lengths(found)[found.encode(text)].sum() == len(text) + 1  # a space before the first


def test_characters_of_unknown_tokens_come_back_from_their_bytes():
    found = ours(llama())
    assert decode(found, found.encode("the 漢字 été").tolist()) == " the 漢字 été"


def test_what_a_text_may_name_is_written_as_it_is_named_and_an_unknown_word_as_a_word():
    found = ours(word_piece(tokenizers.decoders.WordPiece()))
    ids = found.encode("the cat[SEP]", allow_special=True).tolist()
    assert ids[-1] == found.end_of_text_id
    assert decode(found, ids) == " the cat[SEP]"
    assert decode(found, found.encode("the 漢 cat").tolist()) == " the [UNK] cat"


@pytest.mark.parametrize("mark", ["ByteLevel", "Metaspace"])
def test_a_file_that_forgets_its_decoder_is_read_by_the_marks_that_it_sets(mark):
    cut = getattr(tokenizers.pre_tokenizers, mark)()
    whole = learned("BPE", "BpeTrainer", cut, None, unk_token=UNKNOWN)
    found = ours(whole)
    ids = found.encode(TEXT).tolist()
    assert "▁" not in decode(found, ids)
    assert decode(found, ids) == " " + TEXT
    again = tokenizers.Tokenizer.from_str(found.files()["tokenizer.json"].decode())
    assert again.decode(ids).strip() == TEXT  # and other programs read what is handed on


def with_decoder(decoder, **model):
    vocab = {"the</w>": 0, "cat": 1, "##s": 2, "Ġ ": 3, " ": 4, "t": 5, END: 6, UNKNOWN: 7}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": UNKNOWN} | model
    return json.dumps({"version": "1.0", "decoder": decoder, "model": model}).encode()


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def sequence(*steps):
    return {"type": "Sequence", "decoders": list(steps)}


def replace(content, **pattern):
    return {"type": "Replace", "pattern": pattern, "content": content}


@pytest.mark.parametrize(
    ("decoder", "model"),
    [
        ({"type": "BPEDecoder", "suffix": "</w>"}, {}),
        (BYTE_LEVEL, {"type": "BPE", "merges": [], "end_of_word_suffix": "</w>"}),
        ({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True}, {}),
        (sequence(BYTE_LEVEL, {"type": "Strip", "content": " ", "start": 1, "stop": 0}), {}),
        (sequence({"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 0, "stop": 1}), {}),
        (sequence({"type": "Fuse"}, replace("", String="tt")), {}),
        (replace("x" * 1000, String="t"), {}),
        (sequence(*[replace("x", Regex="")] * 60), {}),
        (sequence(*[replace("x", String="")] * 60), {}),
        (sequence(*[{"type": "Fuse"}] * 1000), {}),
    ],
    ids=lambda value: json.dumps(value)[:50],
)
def test_a_decoder_that_writes_a_token_by_its_neighbours_or_without_end_is_refused(decoder, model):
    content = with_decoder(decoder, **model)
    tokenizers.Tokenizer.from_str(content.decode())  # the control: the library takes it
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ArtifactError, match=r"its.json: its .* neighbours") as refused:
        HuggingFaceTokenizer(content, END, path="its.json")
    assert time.process_time() - started < 5
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert len(str(refused.value).splitlines()) == 1
    assert refused.value.exit_code == 3


def test_a_text_for_which_there_is_no_token_is_refused(tmp_path):
    model = {"type": "WordLevel", "vocab": {"a": 0, "<|endoftext|>": 1}, "unk_token": "none"}
    whole = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    tokenizer = HuggingFaceTokenizer(json.dumps(whole).encode(), "<|endoftext|>")
    assert tokenizer.encode("a a").tolist() == [0, 0]
    with pytest.raises(InputError, match="cannot read the text"):
        tokenizer.encode("a b")
