"""Splits that do not leak, mixtures, the book's numbers, and data that is not what it was."""

import json
import random
import re

import pytest

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import DataConfig, TokenizerConfig, TrainConfig
from gpt_pretrain.data.corpus import check_same, check_windows, load_corpus
from gpt_pretrain.data.learned import tokenizer_for
from gpt_pretrain.data.windows import count_windows
from gpt_pretrain.errors import InputError
from gpt_pretrain.tokenizer import build_tokenizer
from gpt_pretrain.training.preflight import preflight
from gpt_pretrain.training.train import train
from tests.conftest import QUICK


def documents(folder, texts):
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def many(n, seed=0):
    draw = random.Random(seed)
    return {f"{k:04d}.txt": f"document {draw.random()} " + "x" * draw.randrange(50) for k in range(n)}


def test_the_book_s_numbers(story, load):
    corpus = load(story, tokenizer="gpt2")
    assert (corpus.n_characters, len(corpus.train), len(corpus.val)) == (20479, 4612, 534)
    assert count_windows(len(corpus.train), 256, 256) == 18
    assert count_windows(len(corpus.val), 256, 256) == 2
    text = story.read_text()
    assert build_tokenizer("gpt2").decode_bytes(corpus.train[:].tolist()).decode() == text[:18431]
    assert len(load(story, tokenizer="gpt2", split="tokens").train) == int(0.9 * 5145)


@pytest.mark.parametrize("split", ["characters", "tokens", "documents"])
def test_the_splits_together_are_the_text_and_documents_are_kept_apart(tmp_path, load, text_of, split):
    texts = many(60)
    corpus = load(documents(tmp_path / "d", texts), split=split, val_fraction=0.2)
    parts = text_of(corpus.train), text_of(corpus.val)
    if split == "documents":
        assert sorted(parts[0].split("|") + parts[1].split("|")) == sorted(texts.values())
        assert not set(parts[0].split("|")) & set(parts[1].split("|"))
    else:
        joined = "|".join(texts.values())
        assert "".join(parts).replace("|", "") == joined.replace("|", "")
        assert abs(len(parts[1]) / len(joined) - 0.2) < 0.01
    assert corpus.n_characters == sum(map(len, texts.values()))


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_cut_by_characters_anywhere_puts_end_of_text_only_between_documents(tmp_path, load, text_of, cut):
    texts = {"a.txt": "aaaa", "b.txt": "bbbb", "c.txt": "cccc"}
    corpus = load(documents(tmp_path / "d", texts), val_fraction=1 - cut / 12 - 1e-9)
    joined, kept, seen = "aaaa|bbbb|cccc", "", 0
    while seen < cut:
        seen += joined[len(kept)] != "|"
        kept += joined[len(kept)]
    assert (text_of(corpus.train), text_of(corpus.val)) == (kept, joined[len(kept) :].lstrip("|"))


def test_a_document_stays_on_its_side_when_others_come_and_files_are_renamed(tmp_path, load, text_of):
    texts = many(80)
    first = load(documents(tmp_path / "d", texts), split="documents", val_fraction=0.3)
    val = set(text_of(first.val).split("|"))
    assert 10 < len(val) < 40
    more = {f"z{name}": text for name, text in texts.items()} | many(80, seed=1)
    second = load(documents(tmp_path / "e", more), split="documents", val_fraction=0.3)
    assert val == set(text_of(second.val).split("|")) & set(texts.values())


def test_equal_documents_are_never_on_both_sides(tmp_path, load, text_of):
    rows = [json.dumps({"text": text}) for text in list(many(30).values()) * 3]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    corpus = load(tmp_path / "a.jsonl", split="documents", val_fraction=0.3)
    assert not set(text_of(corpus.train).split("|")) & set(text_of(corpus.val).split("|"))


def test_a_separate_validation_source_leaves_the_other_whole(tmp_path, load, text_of):
    (tmp_path / "train.txt").write_text("train text")
    (tmp_path / "val.txt").write_text("val é")
    corpus = load(tmp_path / "train.txt", val_path=str(tmp_path / "val.txt"))
    assert (text_of(corpus.train), text_of(corpus.val)) == ("train text", "val é")
    assert corpus.n_characters == 15


def test_a_validation_file_inside_the_folder_that_is_trained_on_is_refused(tmp_path, load):
    for name in ("train.txt", "val.txt"):
        (tmp_path / name).write_text(f"text of {name}")
    with pytest.raises(InputError, match=r"val_path=.*val\.txt holds .*val\.txt, which is trained on"):
        load(tmp_path, val_path=str(tmp_path / "val.txt"))


def test_a_validation_source_of_the_text_that_is_trained_on_is_refused(tmp_path, load):
    for name in ("train.txt", "copy.txt"):
        (tmp_path / name).write_text("the same text")
    with pytest.raises(InputError, match=r"copy\.txt, a copy of .*train\.txt, which is trained on"):
        load(tmp_path / "train.txt", val_path=str(tmp_path / "copy.txt"))


def test_a_file_in_two_sources_is_split_by_documents_or_refused(tmp_path, load):
    documents(tmp_path / "books", {"a.txt": "text of a" * 9, "b.txt": "text of b" * 9})
    sources = {str(tmp_path / "books"): 1.0, str(tmp_path / "books" / "a.txt"): 3.0}
    with pytest.raises(InputError, match=r"a\.txt is in .*books and in .*a\.txt"):
        load(None, source="mixture", sources=sources)
    corpus = load(None, source="mixture", sources=sources, split="documents", val_fraction=0.5)
    assert [len(part.files) for part in corpus.parts] == [2, 1]


def test_a_mixture_s_folder_may_be_named_by_a_number(tmp_path, load, text_of, monkeypatch):
    documents(tmp_path / "2024", {"a.txt": "a" * 20})
    monkeypatch.chdir(tmp_path)
    assert text_of(load(None, source="mixture", sources={2024: 1}).train) == "a" * 18


def test_a_mixture_has_the_sources_weights_and_validates_on_all(tmp_path, load, text_of):
    (tmp_path / "a.txt").write_text("a" * 90 + "A" * 10)
    (tmp_path / "b.txt").write_text("b" * 180 + "B" * 20)
    sources = {str(tmp_path / "a.txt"): 3.0, str(tmp_path / "b.txt"): 1.0}
    corpus = load(None, source="mixture", sources=sources)
    assert [part.weight for part in corpus.parts] == [3, 1]
    assert [len(part.train) for part in corpus.trained] == [90, 180]
    assert text_of(corpus.val) == "A" * 10 + "|" + "B" * 20


@pytest.mark.parametrize("special", [False, True])
def test_end_of_text_inside_a_text_stays_text_unless_asked(tmp_path, load, special):
    (tmp_path / "a.txt").write_text("a<|endoftext|>b" * 10)
    corpus = load(tmp_path / "a.txt", special_tokens=special, split="tokens")
    assert ((corpus.train + corpus.val)[:] == 256).sum() == (10 if special else 0)


def test_the_alphabet_of_characters_is_that_of_all_the_data(tmp_path, cache):
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "v.txt").write_text("wé")
    config = DataConfig(source="text_files", path=str(tmp_path / "a.txt"), val_path=str(tmp_path / "v.txt"))
    tokenizer = tokenizer_for(config, TokenizerConfig(name="characters"))
    assert tokenizer.vocab_size == len(set("hellowé")) + 1
    assert load_corpus(config, tokenizer).val[:].tolist() == tokenizer.encode("wé").tolist()
    assert tokenizer_for(config, TokenizerConfig(name="characters")).vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize("lower", [False, True])
def test_a_tokenizer_that_changes_the_text_has_the_bytes_said_that_it_writes(tmp_path, cache, lower):
    tokenizers = pytest.importorskip("tokenizers")
    words = ["ein", "Ein", "baum", "Baum", "[UNK]", "</s>"]
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(dict(zip(words, range(6), strict=True))))
    made.add_special_tokens(["[UNK]", "</s>"])
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.decoder = tokenizers.decoders.WordPiece()
    if lower:
        made.normalizer = tokenizers.normalizers.Lowercase()
    made.save(str(tmp_path / "tokenizer.json"))
    settings = TokenizerConfig(name="huggingface", path=str(tmp_path / "tokenizer.json"), end_of_text="</s>")
    text = "ein Baum " * 200 + ("Schrank " * 100 if lower else "")
    (tmp_path / "a.txt").write_text(text)
    config = DataConfig(source="text_files", path=str(tmp_path / "a.txt"), split="tokens")
    for _ in range(2):  # built, then read from the cache
        corpus = load_corpus(config, build_tokenizer(settings))
        said = [line for line in corpus.remarks() if "changes the text" in line]
        written = 200 * len(" ein baum") + (100 * len(" [UNK]") if lower else 0)
        assert len(said) == lower
        assert all(f"of {written:,} bytes" in line and f"the {len(text):,} that" in line for line in said), (
            said
        )


def test_a_vocabulary_above_65536_is_stored_in_four_bytes(tmp_path, cache):
    (tmp_path / "a.txt").write_text("".join(map(chr, range(0x10000, 0x10000 + 70000))))
    config = DataConfig(source="text_files", path=str(tmp_path / "a.txt"))
    tokenizer = tokenizer_for(config, TokenizerConfig(name="characters"))
    corpus = load_corpus(config, tokenizer)
    assert corpus.train[:].tolist() + corpus.val[:].tolist() == list(range(70000))


@pytest.mark.parametrize("path", ["tokens.bin", "empty.txt"])
def test_characters_need_a_text_for_their_alphabet(tmp_path, cache, path):
    for name in ("tokens.bin", "empty.txt"):
        (tmp_path / name).touch()
    source = "token_files" if path == "tokens.bin" else "text_files"
    config = DataConfig(source=source, path=str(tmp_path / path), split="tokens")
    with pytest.raises(InputError, match=f"tokenizer=characters.*{path} holds"):
        tokenizer_for(config, TokenizerConfig(name="characters"))


def test_a_context_too_long_is_refused_with_one_that_fits_both_splits(tmp_path, load):
    (tmp_path / "a.txt").write_text("x" * 1000)
    corpus = load(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"900 training tokens .*\n.*model\.context_length=99"):
        check_windows(corpus, DataConfig(), 5000)
    check_windows(corpus, DataConfig(), 99)
    few = load(tmp_path / "a.txt", val_fraction=0.001)
    with pytest.raises(InputError, match="1 validation tokens") as refused:
        check_windows(few, DataConfig(), 8)
    assert "context_length" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "\ufeff", " \n\t\n"])
def test_an_empty_source_is_refused(tmp_path, load, content):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(InputError, match="holds no text"):
        load(tmp_path / "a.txt")


def test_a_changed_source_is_named_with_both_fingerprints(tmp_path, load):
    file = tmp_path / "a.txt"
    file.write_text("one text")
    before = load(file).fingerprints
    check_same(load(file), before, "run")
    file.write_text("two text")
    after = load(file)
    with pytest.raises(InputError) as refused:
        check_same(after, before, "outputs/run")
    check_same(after, {"where/it/lay.txt": after.fingerprints[str(file)]}, "run")  # moved, not changed
    with pytest.raises(InputError, match=r"b\.txt is not .* fingerprint is missing"):
        check_same(after, {**after.fingerprints, "b.txt": "123"}, "run")
    for word in (str(file), before[str(file)], after.fingerprints[str(file)], "outputs/run"):
        assert word in str(refused.value)


@pytest.mark.trains
def test_a_resumed_run_whose_text_changed_is_refused_before_it_trains(tmp_path, load):
    file, run = tmp_path / "a.txt", tmp_path / "run"
    file.write_text("one text " * 200)
    options = [*QUICK, "data=text_files", f"data.path={file}", "trainer.max_steps=1", "data.batch_size=2"]
    config = compose("train", TrainConfig, options)
    run.mkdir()
    train(config, preflight(config, run), run)
    config = compose("train", TrainConfig, [*options, f"resume={run}"])
    assert preflight(config, run).resume_from == run / "checkpoints" / "step-00000001"
    before = load(file).fingerprints[str(file)]
    file.write_text("two text " * 200)
    with pytest.raises(InputError, match=before) as refused:
        preflight(config, run)
    assert load(file).fingerprints[str(file)] in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 3


@pytest.mark.parametrize(("long", "at_all"), [(100, True), (9, False)])
def test_a_source_too_short_for_a_window_is_refused_by_its_name(tmp_path, load, long, at_all):
    """Its weight would go to the others, or there would be no window at all."""
    (tmp_path / "a.txt").write_text("a" * long)
    (tmp_path / "b.txt").write_text("b" * 9)
    (tmp_path / "v.txt").write_text("v" * 100)
    paths = [str(tmp_path / name) for name in ("a.txt", "b.txt", "v.txt")]
    options = {"source": "mixture", "sources": {paths[0]: 1.0, paths[1]: 3.0}, "val_path": paths[2]}
    corpus = load(None, **options)
    first = paths[1] if at_all else paths[0]
    with pytest.raises(InputError, match=f"{re.escape(first)} has 9 training tokens, too few for one window"):
        check_windows(corpus, DataConfig(**options), 10)
    check_windows(corpus, DataConfig(**options), 8)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"path": "none"}, "data.path=none"),
        ({"path": "a.txt", "val_path": "none"}, "data.val_path=none"),
        ({"source": "mixture", "sources": {"a.txt": 1.0, "none": 1.0}}, "data.sources=none"),
    ],
)
def test_what_is_missing_is_named_by_the_setting_that_names_it(tmp_path, load, monkeypatch, options, key):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a" * 100)
    with pytest.raises(InputError, match=f"{key}: no such file"):
        load(**{"path": None, **options})
