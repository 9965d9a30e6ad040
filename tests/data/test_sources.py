"""Sources: the same content has the same fingerprint, and Hugging Face data sets are read from disk."""

import json
import os
import sys

import pytest

from gpt_pretrain.config import DataConfig
from gpt_pretrain.data import fingerprints
from gpt_pretrain.data.sources import PythonReference, build_source
from gpt_pretrain.errors import InputError


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
    for note in cache.rglob("*.json"):
        note.write_text("cut sho")
    assert fingerprints.remembered(file, cache, "x", compute) == {"digest": "two"}


def test_the_python_reference_is_one_document_of_the_same_text_every_time():
    one, other = PythonReference(), PythonReference()
    assert one.fingerprint() == other.fingerprint()
    assert len(list(one.documents(lambda n_bytes: None))) == 1


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


def test_without_the_extra_hugging_face_says_how_to_install_it(tmp_path, load, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "train.jsonl").write_text('{"text": "a"}')
    with pytest.raises(InputError, match=r"pip install 'gpt_pretrain\[data\]'"):
        load(tmp_path, source="hugging_face")
