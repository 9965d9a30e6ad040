"""`<|endoftext|>` in a text is counted once each, however it is read, and what makes a mark of it is said."""

import gzip
import itertools
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_pretrain.config import DataConfig, TokenizerConfig
from gpt_pretrain.data import token_cache
from gpt_pretrain.data.corpus import load_corpus
from gpt_pretrain.data.learned import tokenizer_for
from gpt_pretrain.data.marks import CountedMarks, cut_at
from gpt_pretrain.data.notes import read_note, write_note
from gpt_pretrain.evaluate import evaluate
from gpt_pretrain.inspect_data import inspect_data
from gpt_pretrain.prepare import prepare
from gpt_pretrain.tokenizer import build_tokenizer

MARK = "<|endoftext|>"


def said(corpus):
    return [line for line in corpus.remarks() if "ordinary tokens" in line]


@given(st.lists(st.sampled_from(["a", "<", MARK, MARK[:5], MARK[5:], "|>", "aba", "ab", ""])), st.data())
def test_a_mark_counts_once_wherever_the_pieces_end(parts, data):
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    marks = CountedMarks([MARK, "aba"])  # the second overlaps with itself
    assert ["".join(document) for document in marks.of([pieces, pieces])] == [text, text]
    expected = {mark: 2 * text.count(mark) for mark in (MARK, "aba") if mark in text}
    assert marks.counts == expected


@given(
    st.lists(st.sampled_from(["a", "<", MARK, MARK[:5], MARK[5:], "<pad>", "<p", "ad>", "b\n", ""])),
    st.data(),
)
def test_documents_are_what_stands_between_marks_wherever_the_pieces_end(parts, data):
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    between = [part for part in text.replace("<pad>", MARK).split(MARK) if part]
    assert ["".join(document) for document in cut_at(["<pad>", MARK], [pieces, pieces])] == between * 2
    assert ["".join(document) for document in cut_at([], [pieces])] == [text]


def test_a_text_without_marks_is_handed_on_in_the_pieces_that_it_comes_in():
    pieces = ["one <", "two <|end", " three"]
    (found,) = [list(document) for document in cut_at([MARK], [pieces])]
    assert found == ["one ", "<two ", "<|end three"]  # a word at a piece's end stays whole


@pytest.mark.parametrize("split", ["characters", "tokens", "documents"])
def test_pieces_between_marks_are_documents_as_rows_are(tmp_path, load, text_of, split):
    texts = [f"{number} apples, " * (1 + number % 7) for number in range(200)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    (tmp_path / "marked.txt").write_text(MARK.join(texts) + MARK)
    rows, marked = (
        load(tmp_path / name, split=split, special_tokens=True) for name in ("rows.jsonl", "marked.txt")
    )
    for found, expected in ((marked.train, rows.train), (marked.val, rows.val)):
        assert text_of(found) == text_of(expected)
        assert len(found) > 100
    (found,), (expected,) = marked.parts, rows.parts
    assert (found.n_characters, found.n_bytes) == (expected.n_characters, expected.n_bytes)
    for stream, starts in expected.documents.items():
        assert found.documents[stream].tolist() == starts.tolist()
    if split == "documents":
        assert set(text_of(marked.train).split("|")) | set(text_of(marked.val).split("|")) == set(texts)


def test_a_mark_over_the_end_of_a_document_is_none():
    marks = CountedMarks([MARK])
    for document in marks.of([[MARK[:4]], [MARK[4:]]]):
        list(document)
    assert marks.counts == {}


@pytest.mark.parametrize("tokenizer", ["bytes", "gpt2", "characters"])
@pytest.mark.parametrize("split", ["characters", "tokens", "documents"])
def test_the_marks_of_a_text_are_said_with_what_reads_them(tmp_path, load, tokenizer, split):
    file = tmp_path / "stories.txt"
    file.write_text(f"Once upon a time.\n{MARK}\nThe end. " * 1200)
    config = DataConfig(source="text_files", path=str(file), split=split)
    for _ in range(2):  # built, then read from the cache
        (line,) = said(load_corpus(config, tokenizer_for(config, TokenizerConfig(name=tokenizer))))
        assert line.startswith(f"{file}: {MARK} stands in the text 1,200 times")
        assert "data.special_tokens=true" in line
    config.special_tokens = True
    corpus = load_corpus(config, built := tokenizer_for(config, TokenizerConfig(name=tokenizer)))
    assert said(corpus) == []
    assert ((corpus.train + corpus.val)[:] == built.end_of_text_id).sum() == 1200


@pytest.mark.parametrize("name", ["rows.jsonl", "packed.txt.gz"])
def test_marks_are_counted_in_every_kind_of_file(tmp_path, load, name):
    text = f"one {MARK} two"
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(text.encode() * 3))
    else:
        (tmp_path / name).write_text("\n".join([json.dumps({"text": text})] * 3))
    (line,) = said(load(tmp_path / name))
    assert " 3 times " in line


def test_marks_in_the_validation_text_and_in_each_source_are_said(tmp_path, load):
    for name, count in (("a", 1), ("b", 2), ("v", 3)):
        (tmp_path / f"{name}.txt").write_text(f"text of {name} {MARK} " * count)
    sources = {str(tmp_path / "a.txt"): 1.0, str(tmp_path / "b.txt"): 1.0}
    lines = said(load(None, source="mixture", sources=sources, val_path=str(tmp_path / "v.txt")))
    assert [line.partition(" stands in the text ")[2].partition(" and")[0] for line in lines] == [
        *("once", "2 times", "3 times")
    ]
    assert "val_path=" in lines[2]


def test_a_text_without_marks_says_nothing_nor_does_a_cache_that_never_counted(tmp_path, load):
    file = tmp_path / "a.txt"
    file.write_text("<|endoftext |> <|endoftext")
    assert said(load(file)) == []
    file.write_text(f"text {MARK}")
    corpus = load(file)
    assert len(said(corpus)) == 1
    index = corpus.parts[0].folder / "index.json"
    older = read_note(index)
    del older["marks"]
    write_note(index, older)
    again = load(file)
    assert (said(again), again.parts[0].built) == ([], False)


def test_a_build_that_was_interrupted_counts_the_whole_text(tmp_path, load, monkeypatch):
    monkeypatch.setattr(token_cache, "COMMIT_SECONDS", 0.0)
    monkeypatch.setattr("gpt_pretrain.data.splits.BATCH_CHARACTERS", 100)
    monkeypatch.setattr("gpt_pretrain.tokenizer.segmentation.SEGMENT", 90)
    file = tmp_path / "a.txt"
    file.write_text(f"one two {MARK} " * 100)
    original = token_cache.encode_batches

    def killed(*arguments, **options):
        yield from itertools.islice(original(*arguments, **options), 8)
        raise KeyboardInterrupt

    monkeypatch.setattr(token_cache, "encode_batches", killed)
    with pytest.raises(KeyboardInterrupt):
        load(file)
    monkeypatch.setattr(token_cache, "encode_batches", original)
    assert " 100 times " in said(load(file))[0]


def test_a_tokenizer_with_another_mark_has_its_own_counted_and_the_usual_one_explained(tmp_path, cache):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="?"))
    trainer = tokenizers.trainers.BpeTrainer(
        special_tokens=["?", "</s>"], initial_alphabet=[*" <|>/abcdefghijklmnopqrstuvwxyz"]
    )
    made.train_from_iterator(["a text"], trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    settings = TokenizerConfig(name="huggingface", path=str(tmp_path / "tokenizer.json"), end_of_text="</s>")
    (tmp_path / "a.txt").write_text(f"a text </s> another {MARK} " * 2)
    config = DataConfig(source="text_files", path=str(tmp_path / "a.txt"))
    own, usual = said(load_corpus(config, build_tokenizer(settings)))
    assert "</s> stands in the text 2 times" in own
    assert "data.special_tokens=true reads it" in own
    assert f"{MARK} stands in the text 2 times" in usual
    assert "write </s> in its place" in usual
    config.special_tokens = True
    (left,) = said(load_corpus(config, build_tokenizer(settings)))
    assert MARK in left


@pytest.mark.trains
def test_the_programs_say_it(typed, tmp_path, capsys, monkeypatch):
    (tmp_path / "a.txt").write_text(f"some words {MARK} " * 60)
    data, model = ["data=text_files", "data.path=a.txt"], ["model=tiny", "tokenizer=bytes"]
    quick = ["trainer.max_steps=1", "trainer.eval_batches=1", "decoding.max_new_tokens=1"]
    assert typed("train", *data, *model, *quick, "trainer=cpu", "hydra.run.dir=run")[0] == 0
    assert f"{MARK} stands in the text 60 times" in (tmp_path / "run" / "train.log").read_text()
    for program, arguments in (
        (inspect_data, model),
        (prepare, ["tokenizer=bytes"]),
        (evaluate, ["checkpoint=run"]),
    ):
        monkeypatch.setattr(sys, "argv", ["program.py", *data, *arguments])
        program()
        printed = capsys.readouterr()
        assert f"{MARK} stands in the text 60 times" in printed.out + printed.err
