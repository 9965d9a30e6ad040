"""What a folder, a glob or a file means is decided on purpose, and what is passed over is said."""

import gzip
import json

import pytest

from gpt_pretrain.data.files import documents_in
from gpt_pretrain.data.listing import find_files
from gpt_pretrain.errors import InputError


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


def names(listing, folder):
    return [str(file.relative_to(folder)) for file in listing.files]


def reasons(listing, folder):
    return {str(file.relative_to(folder)): why.partition(":")[0] for file, why in listing.passed_over.items()}


@pytest.mark.parametrize(
    ("name", "passed_over", "reason"),
    [
        (".ipynb_checkpoints/a-checkpoint.txt", ".ipynb_checkpoints", "hidden"),
        (".a.txt", ".a.txt", "hidden"),
        ("__MACOSX/._a.txt", "__MACOSX/._a.txt", "hidden"),
        ("sub/.git/b.md", "sub/.git", "hidden"),
        ("#b.txt#", "#b.txt#", "an editor's backup"),
        ("b.txt~", "b.txt~", "an editor's backup"),
        ("table.csv", "table.csv", "of another kind"),
        ("train.bin", "train.bin", "of another kind"),
        ("README", "README", "of another kind"),
    ],
)
def test_what_no_one_means_by_a_folder_is_passed_over_with_its_reason(tmp_path, name, passed_over, reason):
    listing = find_files(str(make(tmp_path, "a.txt", name)), None)
    assert names(listing, tmp_path) == ["a.txt"]
    assert reasons(listing, tmp_path) == {passed_over: reason}


@pytest.mark.parametrize("name", [".hidden.txt", "b.txt~", ".folder/a.txt", "a.log", "noname"])
def test_what_is_named_directly_is_taken_whatever_its_name(tmp_path, name):
    make(tmp_path, name)
    assert find_files(str(tmp_path / name), None).files == [tmp_path / name]


def test_a_hidden_folder_that_is_named_directly_is_read(tmp_path):
    make(tmp_path, ".books/a.txt", ".books/.b.txt")
    assert names(find_files(str(tmp_path / ".books"), None), tmp_path) == [".books/a.txt"]
    assert names(find_files(str(tmp_path), ".books/*.txt"), tmp_path) == [".books/.b.txt", ".books/a.txt"]


def test_a_glob_passes_over_backups_and_known_kinds_that_are_no_text(tmp_path):
    make(tmp_path, "a.txt", "a.txt~", ".b.txt", "c.csv", "d.log", "sub/e.txt")
    listing = find_files(f"{tmp_path}/*", None)
    assert names(listing, tmp_path) == ["a.txt", "d.log"]
    assert set(reasons(listing, tmp_path)) == {"a.txt~", "c.csv", "sub"}


def test_links_to_folders_are_passed_over_and_said_and_linked_files_count_once(tmp_path):
    folder = make(tmp_path / "books", "a.txt")
    make(tmp_path, "elsewhere/c.txt", "d.txt")
    (folder / "again.txt").symlink_to("a.txt")
    (folder / "d.txt").symlink_to(tmp_path / "d.txt")
    (folder / "loop").symlink_to(".")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "nowhere.txt").symlink_to("nothing")
    listing = find_files(str(folder), None)
    assert names(listing, folder) == ["a.txt", "d.txt"]
    assert reasons(listing, folder) == {
        "again.txt": "a file taken already",
        "loop": "a link to a folder",
        "more": "a link to a folder",
        "nowhere.txt": "a link to nothing",
    }


@pytest.mark.parametrize("name", ["A.TXT", "B.Md", "c.JSONL", "d.NDJSON", "e.Jsonl.GZ", "f.Parquet"])
def test_suffixes_in_capitals_are_the_same_suffixes(tmp_path, name):
    assert names(find_files(str(make(tmp_path, name)), None), tmp_path) == [name]


@pytest.mark.parametrize("name", ["a.JSONL", "a.ndjson", "a.NDJSON", "a.jsonl.GZ", "a.ndjson.gz"])
def test_rows_are_read_as_rows_whatever_the_name_s_letters(tmp_path, name):
    row = json.dumps({"text": "one"}).encode()
    (tmp_path / name).write_bytes(gzip.compress(row) if name.lower().endswith("gz") else row)
    assert list(documents_in(tmp_path / name, "text", lambda n: None)) == [["one"]]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.md.gz", "a.TXT.GZ", "a.txt.zst"])
def test_packed_text_is_read_as_text(tmp_path, name):
    text = "one\ntwo\n" * 100_000
    pack = gzip.compress
    if name.endswith("zst"):
        pack = pytest.importorskip("zstandard").ZstdCompressor().compress
    (tmp_path / name).write_bytes(pack(text.encode()))
    assert ["".join(pieces) for pieces in documents_in(tmp_path / name, "text", lambda n: None)] == [text]
    assert names(find_files(str(tmp_path), None), tmp_path) == [name]


def test_the_packed_copy_of_a_file_beside_it_counts_once(tmp_path):
    listing = find_files(str(make(tmp_path, "a.txt", "a.txt.gz", "b.txt.gz")), None)
    assert names(listing, tmp_path) == ["a.txt", "b.txt.gz"]
    assert reasons(listing, tmp_path) == {"a.txt.gz": "the packed copy of a file taken already"}


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("a.json", "jq -c '.[]' it.json > it.jsonl"),
        ("a.JSON", "name it .jsonl"),
        ("a.csv", "read_csv"),
        ("a.tsv", "read_table"),
        ("a.docx", "save its text as .txt"),
        ("a.pdf", "save its text as .txt"),
        ("a.html", "write the text in it to a .txt file"),
        ("a.ipynb", "nbconvert"),
        ("a.zip", "unpack it"),
        ("a.tar.gz", "unpack it"),
        ("a.csv.gz", "unpack it"),
        ("a.parquet.gz", "unpack it"),
        ("a.npy", "data=token_files"),
        ("a.BIN", "data=token_files"),
    ],
)
def test_a_known_kind_that_is_no_text_is_refused_with_the_remedy(tmp_path, name, remedy):
    make(tmp_path, name)
    with pytest.raises(InputError) as refused:
        find_files(str(tmp_path / name), None)
    assert remedy in str(refused.value)
    assert str(refused.value).startswith(f"data.path={tmp_path / name} holds ")
    with pytest.raises(InputError, match="holds ") as refused:
        find_files(f"{tmp_path}/a.*", None)
    assert remedy in str(refused.value)


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (gzip.compress(b"text", mtime=0), "name it .txt.gz"),
        (b"\x28\xb5\x2f\xfd\x04\xff", "name it .txt.zst"),
        (b"%PDF-1.7\n%\xff\xff", "save its text as .txt"),
        (b"PK\x03\x04\xff\xff", "unpack it"),
        ("a text of some length, without a mark " * 3, "iconv -f utf-16le"),
    ],
)
def test_a_file_called_txt_that_is_none_is_told_by_its_content(tmp_path, content, advice):
    file = tmp_path / "a.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-16-le"))
    with pytest.raises(InputError) as refused:
        [list(document) for document in documents_in(file, "text", lambda n: None)]
    assert advice in str(refused.value)


def test_a_damaged_packed_text_is_named(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text" * 1000)[:-12])
    with pytest.raises(InputError, match=r"a\.txt\.gz is damaged or cut off"):
        [list(document) for document in documents_in(tmp_path / "a.txt.gz", "text", lambda n: None)]


def test_the_summary_is_one_line_and_a_single_file_has_none(tmp_path):
    make(tmp_path, "a.txt", "b.txt", ".c.txt", "d.csv", "e.csv", "f.png")
    summary = find_files(str(tmp_path), None).summary()
    assert summary == "2 files taken; passed over: 3 of another kind (.csv .png), 1 hidden"
    assert find_files(str(tmp_path / "a.txt"), None).summary() is None


def test_the_corpus_says_what_of_its_folder_it_passed_over(tmp_path, load):
    folder = make(tmp_path / "books", ".b.txt")
    (folder / "a.txt").write_text("abc" * 50)
    corpus = load(folder)
    assert corpus.remarks() == [f"{folder}: 1 file taken; passed over: 1 hidden"]
    assert corpus.n_characters == 150


def test_a_packed_or_structured_file_is_no_book(tmp_path, load):
    for name in ("a.txt.gz", "a.jsonl"):
        (tmp_path / name).write_bytes(gzip.compress(b"the book"))
        with pytest.raises(InputError, match="no book"):
            load(tmp_path / name, source="gutenberg")
