"""The same content under another name is never on both sides of a split without a word."""

import gzip

import numpy as np
import pytest

from gpt_pretrain.errors import InputError


def texts(folder, **contents):
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / f"{name}.txt").write_text(content)
    return folder


@pytest.mark.parametrize("size", [20, 2 << 20])  # a large file's digest is remembered, a small one's is not
def test_a_validation_folder_with_a_renamed_copy_is_refused_with_both_names(tmp_path, load, size):
    train = texts(tmp_path / "train", a="a" * size, b="b" * size)
    val = texts(tmp_path / "val", other="c" * size, renamed="b" * size)
    with pytest.raises(InputError, match=r"holds .*renamed\.txt, a copy of .*b\.txt, which is trained on"):
        load(train, val_path=str(val))
    (val / "renamed.txt").write_text("b" * (size - 1) + "x")
    assert len(load(train, val_path=str(val)).val) == 2 * size + 1


def test_a_single_validation_file_that_copies_one_of_a_folder_is_refused(tmp_path, load):
    train = texts(tmp_path / "train", a="first text", b="second text")
    with pytest.raises(InputError, match=r"v\.txt, a copy of .*a\.txt"):
        load(train, val_path=str(texts(tmp_path / "val", v="first text") / "v.txt"))


def test_a_folder_whose_validation_file_is_a_copy_inside_a_mixture_is_refused(tmp_path, load):
    sources = {str(texts(tmp_path / name, **{name: name * 30})): 1.0 for name in "ab"}
    val = texts(tmp_path / "val", x="b" * 30)
    with pytest.raises(InputError, match=r"x\.txt, a copy of .*b\.txt"):
        load(None, source="mixture", sources=sources, val_path=str(val))


def test_a_copy_of_token_files_is_refused(tmp_path, load):
    for name in ("train", "copy"):
        (tmp_path / name).mkdir()
        np.arange(200, dtype="<u2").tofile(tmp_path / name / f"{name}.bin")
    np.arange(100, dtype="<u2").tofile(tmp_path / "train" / "more.bin")
    with pytest.raises(InputError, match=r"copy\.bin, a copy of .*train\.bin"):
        load(tmp_path / "train", source="token_files", split="tokens", val_path=str(tmp_path / "copy"))


def test_files_without_a_byte_are_no_copies(tmp_path, load):
    train = texts(tmp_path / "train", a="a" * 30, empty="")
    val = texts(tmp_path / "val", v="v" * 30, nothing="")
    assert len(load(train, val_path=str(val)).val) >= 30


def test_two_sources_with_a_copy_are_split_by_documents_or_refused(tmp_path, load):
    sources = {
        str(texts(tmp_path / "one", a="text of a" * 9, b="text of b" * 9)): 1.0,
        str(texts(tmp_path / "two", z="text of b" * 9, y="text of y" * 9)): 1.0,
    }
    with pytest.raises(InputError, match=r"z\.txt of .*two is a copy of .*b\.txt in .*one") as refused:
        load(None, source="mixture", sources=sources)
    assert "data.split=documents" in str(refused.value)
    assert len(load(None, source="mixture", sources=sources, split="documents", val_fraction=0.5).parts) == 2


def test_copies_inside_one_source_are_said_and_count_of_what_repeats_another(tmp_path, load):
    folder = texts(tmp_path / "d", a="same" * 9, b="other" * 9, c="same" * 9, d="same" * 9, e="", f="")
    (said,) = [line for line in load(folder).remarks() if "of another, as" in line]
    assert "2 files are copies of another" in said
    assert f"{folder / 'c.txt'} of {folder / 'a.txt'}" in said
    (folder / "c.txt").write_text("now its own")
    (folder / "d.txt").write_text("its own too")
    assert not [line for line in load(folder).remarks() if "of another, as" in line]


def test_the_packed_copy_of_a_text_elsewhere_is_known_by_the_text_where_it_is_the_only_one(tmp_path, load):
    """Content is compared as it lies on the disk: packing hides a copy, as far as one of many goes."""
    (tmp_path / "a.txt").write_text("text " * 20)
    with gzip.open(tmp_path / "b.txt.gz", "wt") as stream:
        stream.write("text " * 20)
    assert len(load(tmp_path / "a.txt", val_path=str(tmp_path / "b.txt.gz")).val) == 100
