"""Sources: the same content has the same fingerprint, and Hugging Face data sets are read from disk."""

import hashlib
import json
import os
import pydoc_data.topics
import sys
from types import SimpleNamespace

import pytest

from gpt_pretrain.config import DataConfig
from gpt_pretrain.data import fingerprints
from gpt_pretrain.data.python_reference import PythonReference, without_repeats
from gpt_pretrain.data.sources import alphabet_of, build_source
from gpt_pretrain.errors import ArtifactError, InputError


def fingerprint(path, cache, **settings):
    config = DataConfig(**{"source": "text_files", **settings})
    return build_source(config, str(path), cache).fingerprint()


def test_a_fingerprint_is_of_content_not_of_names_or_times(tmp_path, cache):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("one")
    (tmp_path / "c.jsonl").write_text('{"text": "one"}')
    os.utime(tmp_path / "b.txt", (0, 0))
    prints = [fingerprint(tmp_path / name, cache) for name in ("a.txt", "b.txt", "c.jsonl")]
    assert prints[0] == prints[1] != prints[2]
    assert fingerprint(tmp_path / "c.jsonl", cache, text_field="body") != prints[2]
    assert fingerprint(tmp_path / "a.txt", cache, source="gutenberg") != prints[0]


def test_a_fingerprint_tells_how_a_file_is_read(tmp_path, cache):
    for name in ("a.jsonl", "a.jsonl.txt"):
        (tmp_path / name).write_text('{"text": "one"}')
    assert fingerprint(tmp_path / "a.jsonl", cache) != fingerprint(tmp_path / "a.jsonl.txt", cache)


def test_a_large_file_is_read_again_only_when_it_changed(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(fingerprints, "SMALL", 0)
    read = []

    def compute(file):
        read.append(file)
        return {"digest": file.read_text()}

    file = tmp_path / "a.txt"
    for text, reads in (("one", 1), ("one", 1), ("two", 2)):
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            os.utime(file, ns=(0, hash(text) % 10**15))
        for _ in range(2):
            assert fingerprints.remembered(file, cache, "x", compute) == {"digest": text}
        assert len(read) == reads
    (note,) = cache.rglob("*.json")
    for damaged in ("cut sho", note.read_text().replace("two", "tow")):
        note.write_text(damaged)
        assert fingerprints.remembered(file, cache, "x", compute) == {"digest": "two"}


def test_a_damaged_alphabet_is_read_from_the_text_again(tmp_path, cache):
    (tmp_path / "a.txt").write_text("banana")
    source = build_source(DataConfig(source="text_files"), str(tmp_path / "a.txt"), cache)
    assert alphabet_of(source, cache) == "abn"
    (note,) = cache.rglob("*.json")
    for damaged in ("", note.read_text().replace("abn", "abm")):
        note.write_text(damaged)
        assert alphabet_of(source, cache) == "abn"


def test_the_verdict_is_downloaded_once_and_again_when_the_copy_is_damaged(tmp_path, cache):
    original = tmp_path / "original.txt"
    original.write_text("the story")
    digest = hashlib.sha256(b"the story").hexdigest()
    config = DataConfig(source="the_verdict", url=original.as_uri(), sha256=digest)
    build_source(config, None, cache)
    copy = cache / "the-verdict.txt"
    copy.write_text("the starry")
    build_source(config, None, cache)
    assert copy.read_text() == "the story"
    original.unlink()
    build_source(config, None, cache)
    copy.unlink()
    with pytest.raises(InputError, match="cannot be reached"):
        build_source(config, None, cache)
    original.write_text("another story")
    with pytest.raises(ArtifactError, match=r"has SHA-256 .*\n.*data\.path="):
        build_source(config, None, cache)


@pytest.mark.parametrize("url", ["nonsense", "", None])
def test_what_is_no_address_of_the_verdict_is_an_input_error(cache, url):
    config = DataConfig(source="the_verdict", url=url, sha256="0" * 64)
    with pytest.raises(InputError, match=r"data\.url=.* cannot be reached .*\n.*data\.path="):
        build_source(config, None, cache)


def test_the_python_reference_is_a_document_a_topic_and_none_is_repeated_in_another():
    one, other = PythonReference(), PythonReference()
    assert one.fingerprint() == other.fingerprint()
    texts = ["".join(document) for document in one.documents(lambda n_bytes: None)]
    topics = pydoc_data.topics.topics
    assert set(texts) <= set(topics.values())
    assert len(texts) > 50
    assert sum(map(len, texts)) > 300_000
    for text in texts:
        lines = {line for other in texts if other is not text for line in other.splitlines()}
        own = [line for line in text.splitlines() if len(line) > 30]
        assert sum(line in lines for line in own) <= 0.6 * max(len(own), 5)
    repeated = [name for name in topics if topics[name] not in texts]
    assert "compound" in repeated  # the chapter that holds `if`, `for`, `try` and the rest


def test_a_text_that_mostly_stands_in_others_is_left_out():
    texts = {"b": "one\n\ntwo", "a": "one\n\ntwo\n\nthree three", "c": "one\n\ntwo\n\nfour", "d": "five"}
    assert without_repeats(texts) == ["one\n\ntwo\n\nthree three", "five"]  # b is in a, c mostly in b


def test_a_local_hugging_face_data_set_is_streamed(tmp_path, load, text_of):
    pytest.importorskip("datasets", reason="the extra gpt_pretrain[data] is not installed")
    folder = tmp_path / "set"
    folder.mkdir()
    rows = [{"body": text, "id": n} for n, text in enumerate(("one", "", "two", "three" * 30))]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {"source": "hugging_face", "split": "tokens", "val_fraction": 0.1}
    corpus = load(folder, text_field="body", **settings)
    assert text_of(corpus.train + corpus.val) == "one|two|" + "three" * 30
    with pytest.raises(InputError, match="it holds body, id"):
        load(folder, **settings)
    with pytest.raises(InputError, match="cannot be loaded"):
        load(folder, text_field="body", section="nowhere", **settings)


def test_a_section_that_was_saved_to_disk_is_read_and_its_bytes_are_told(tmp_path, cache):
    datasets = pytest.importorskip("datasets", reason="the extra gpt_pretrain[data] is not installed")
    table = datasets.table.InMemoryTable.from_pydict({"text": ["one", None, "zwölf"]})
    datasets.Dataset(table, fingerprint="any").save_to_disk(tmp_path / "set")
    config = DataConfig(source="hugging_face", path=str(tmp_path / "set"))
    counted = []
    documents = build_source(config, config.path, cache).documents(counted.append)
    assert ["".join(document) for document in documents] == ["one", "zwölf"]
    assert counted == [3, 6]


@pytest.mark.parametrize("own", [None, "test"])
def test_a_section_that_was_saved_to_disk_is_not_taken_for_another(tmp_path, cache, own):
    datasets = pytest.importorskip("datasets", reason="the extra gpt_pretrain[data] is not installed")
    table = datasets.table.InMemoryTable.from_pydict({"text": ["one"]})
    split = own and datasets.NamedSplit(own)
    datasets.Dataset(table, fingerprint="any", split=split).save_to_disk(tmp_path / "set")

    def documents(**settings):
        config = DataConfig(source="hugging_face", path=str(tmp_path / "set"), **settings)
        return list(build_source(config, config.path, cache).documents(lambda n_bytes: None))

    assert documents() == [["one"]]
    if own:
        assert documents(section=own) == [["one"]]
    with pytest.raises(
        InputError, match=r"holds one section.*, not data\.section=validation: leave"
    ) as refused:
        documents(section="validation")
    assert (own or "") in str(refused.value)
    with pytest.raises(InputError, match=r"leave data\.subset=wikitext-2 out"):
        documents(subset="wikitext-2")


def test_a_hugging_face_file_that_is_damaged_behind_its_beginning_is_an_input_error(tmp_path, load):
    pytest.importorskip("datasets", reason="the extra gpt_pretrain[data] is not installed")
    pq = __import__("pyarrow.parquet", fromlist=["write_table"])
    pa = __import__("pyarrow")
    file = tmp_path / "set" / "train.parquet"
    file.parent.mkdir()
    pq.write_table(pa.table({"text": [f"{n} " * 50 for n in range(2000)]}), file)
    content = bytearray(file.read_bytes())
    content[3000:3200] = bytes(200)
    file.write_bytes(content)
    with pytest.raises(InputError, match="cannot be loaded"):
        load(file.parent, source="hugging_face", split="tokens", prepare_workers=0)


def test_names_that_make_a_file_part_of_another_section_change_a_hugging_face_fingerprint(tmp_path, cache):
    for name, former, latter in (("a", "test", "train"), ("b", "train", "validation")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{former}.jsonl").write_text('{"text": "one"}')
        (tmp_path / name / f"{latter}.jsonl").write_text('{"text": "two"}')
    one, other = (fingerprint(tmp_path / name, cache, source="hugging_face") for name in "ab")
    assert one != other


def test_a_hub_that_cannot_be_reached_leaves_what_was_prepared_from_it(tmp_path, cache, monkeypatch):
    """As on a compute node, after prepare ran on the login node."""
    revisions = iter(["abc", ConnectionError("no route"), "def"])

    class HfApi:
        def dataset_info(self, path, timeout):
            answer = next(revisions)
            if isinstance(answer, Exception):
                raise answer
            return SimpleNamespace(sha=answer)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=HfApi))
    prints = [fingerprint("someone/corpus", cache, source="hugging_face") for _ in range(3)]
    assert prints[0] == prints[1] != prints[2]
    revisions = iter([ConnectionError("no route")])
    with pytest.raises(InputError, match=r"data\.path=someone/other .* cannot be reached: no route"):
        fingerprint("someone/other", cache, source="hugging_face")


def test_without_the_extra_hugging_face_says_how_to_install_it(tmp_path, load, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "train.jsonl").write_text('{"text": "a"}')
    with pytest.raises(InputError, match=r"pip install '\.\[data\]'"):
        load(tmp_path, source="hugging_face")
