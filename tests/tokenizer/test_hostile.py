"""A tokenizer.json that would fill the memory or end the process is refused; known models' are not."""

import base64
import json
import time
import unicodedata

import numpy as np
import pytest

from gpt_pretrain import foreign
from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.tokenizer.tokenizer_json import HuggingFaceTokenizer
from tests.tokenizer.test_tokenizer_json import END, replace, word_level

tokenizers = pytest.importorskip("tokenizers")


def with_steps(*normalizers, cuts=(), added=()):
    content = json.loads(word_level().to_str())
    content["normalizer"] = {"type": "Sequence", "normalizers": list(normalizers)}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": list(cuts)}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False) | {"normalized": True}
    content["added_tokens"] += [{"id": 500 + n, "content": token, **flags} for n, token in enumerate(added)]
    return json.dumps(content).encode()


def sequence_of(step):
    return {"type": "Sequence", "normalizers": [step] * 15}


def of_kind(kind, **more):
    return {"type": kind, **more}


def charsmap(*written):
    """SentencePiece's table that makes of `a` the first of `written`: darts' double array, then texts."""
    units = np.zeros(512, "<u4")
    units[0] = 256 << 10  # where the children of the root are counted from
    units[256 ^ ord("a")] = (256 ^ ord("a") ^ 300) << 10 | 1 << 8 | ord("a")
    units[300] = 0  # where in the texts
    texts = b"".join(text.encode() + b"\0" for text in written)
    content = units.nbytes.to_bytes(4, "little") + units.tobytes() + texts
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}


BYTES_OF = of_kind("ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=False)
BERT = of_kind(
    "BertNormalizer", clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True
)


@pytest.mark.parametrize(
    "steps",
    [
        {"normalizers": [replace("aaaa", String="a")] * 15},
        {"normalizers": [replace("x" * 40, String="a")]},
        {"normalizers": [replace("aa", String="a")] * 6},
        {"normalizers": [replace("a", Regex="")] * 15},
        {"normalizers": [replace("a", Regex="(?=.)")] * 15},
        {"normalizers": [replace("", Regex="b"), replace("aa", Regex=".")] * 15},
        {"normalizers": [replace("\ufdfa", String="a"), of_kind("NFKC"), replace("a", String="\u0627")] * 9},
        {"normalizers": [replace("\u0130\u0130", String="i\u0307"), of_kind("Lowercase")] * 15},
        {"normalizers": [of_kind("Prepend", prepend="a" * 10_000)]},
        {"normalizers": [of_kind("ByteLevel")] * 15},
        {"cuts": [BYTES_OF] * 15},
        {"normalizers": [BERT] * 15},
        {"normalizers": [charsmap("x" * 33)]},
        {"normalizers": [charsmap("b", "x" * 34)]},
        {"normalizers": [charsmap("aa")] * 15},
    ],
    ids=lambda value: json.dumps(value)[:70],
)
def test_steps_that_make_much_of_little_are_refused_before_they_make_it(steps):
    content = with_steps(*steps.get("normalizers", []), cuts=steps.get("cuts", []), added=["é a" * 30])
    started = time.process_time()
    with pytest.raises(ArtifactError, match=r"its.json is no tokenizer: one character may become") as refused:
        HuggingFaceTokenizer(content, END, path="its.json")
    assert time.process_time() - started < 5
    assert len(str(refused.value).splitlines()) == 1


SPACES = replace("▁", Regex=" {2,}")
FORM = unicodedata.normalize("NFKC", "\ufdfa")  # the longest
META = of_kind("Metaspace", replacement="▁", prepend_scheme="always", split=True)
KNOWN = {
    "T5": {"normalizers": [charsmap("b", FORM), SPACES], "cuts": [META]},
    "T5 without capitals": {
        "normalizers": [of_kind("Lowercase"), charsmap("b", FORM), SPACES],
        "cuts": [META],
    },
    "Llama": {"normalizers": [of_kind("Prepend", prepend="▁"), replace("▁", String=" ")]},
    "Albert": {
        "normalizers": [
            replace('"', String="``"),
            replace('"', String="''"),
            of_kind("NFKD"),
            of_kind("StripAccents"),
            of_kind("Lowercase"),
            SPACES,
        ],
        "cuts": [META],
    },
    "CLIP": {
        "normalizers": [of_kind("NFC"), replace(" ", Regex=r"\s+"), of_kind("Lowercase")],
        "cuts": [BYTES_OF],
    },
    "BERT": {"normalizers": [BERT], "cuts": [of_kind("BertPreTokenizer")]},
    "a code model": {"normalizers": [replace("    ", String="\t"), replace("<n>", String="\n")]},
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_steps_of_known_tokenizers_are_taken(name):
    steps = KNOWN[name]
    HuggingFaceTokenizer(with_steps(*steps.get("normalizers", []), cuts=steps.get("cuts", [])), END)


def test_the_charsmap_of_these_tests_is_one():
    content = base64.b64decode(charsmap("bc", FORM)["precompiled_charsmap"])
    assert tokenizers.normalizers.Precompiled(content).normalize_str("axa") == "bcxbc"


def test_merges_do_not_count_as_what_fills_the_memory(monkeypatch):
    letters = [*'abcdefghijklmnopqrstuvwxyz["\\]']
    pairs = [[left, right] for left in letters for right in letters]
    vocab = {token: id_ for id_, token in enumerate([*letters, *map("".join, pairs), END])}
    model = {"type": "BPE", "vocab": vocab, "merges": pairs}
    content = json.dumps({"version": "1.0", "model": model, "normalizer": replace("b", String="a")}).encode()
    monkeypatch.setattr(
        foreign, "SPARE", 2500 * foreign.VALUE
    )  # as half a million merges are to the true one
    with pytest.raises(ValueError, match="too many"):
        foreign.parse_json(content)
    assert HuggingFaceTokenizer(content, END).encode("ab").tolist() == [vocab["bb"]]
    many = replace("aaaa", String="a")
    content = json.dumps({"version": "1.0", "model": model, "normalizer": sequence_of(many)}).encode()
    with pytest.raises(ArtifactError, match="one character"):
        HuggingFaceTokenizer(content, END)


@pytest.mark.parametrize("begins", ['"', '["', '["a", "'])
def test_a_text_without_end_is_refused_at_once(begins):
    started = time.process_time()
    with pytest.raises(ArtifactError, match="no tokenizer"):
        HuggingFaceTokenizer((begins + r"\"" * 100_000).encode(), END)
    assert time.process_time() - started < 5  # minutes, were it searched from each quote


def test_what_makes_the_library_panic_is_refused_in_one_line():
    cut = of_kind("Split", pattern={"Regex": "(?:x+x+)+y"}, behavior="Isolated", invert=False)
    found = HuggingFaceTokenizer(with_steps(cuts=[cut]), END)
    assert len(found.encode("xy"))
    with pytest.raises(ArtifactError, match="makes the tokenizers library fail: ") as refused:
        found.encode("x" * 40)
    assert len(str(refused.value).splitlines()) == 1


def test_a_panic_while_a_file_is_read_is_refused_in_one_line():
    content = with_steps(replace("", Regex="(?:x+x+)+y"), added=["x" * 40])
    with pytest.raises(ArtifactError, match=r"^its.json makes the tokenizers library fail: ") as refused:
        HuggingFaceTokenizer(content, END, path="its.json")
    assert len(str(refused.value).splitlines()) == 1
