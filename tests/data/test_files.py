"""Documents come out of every kind of file as they went in; a file that cannot be read is named."""

import errno
import gzip
import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_pretrain.data.files import documents_in, text_pieces
from gpt_pretrain.data.listing import find_files
from gpt_pretrain.errors import InputError

TEXTS = ["one\ntwo", "日本語 \U0001f600", 'quotes " and \\', "x" * 3000]


def read(file, field="text"):
    counted = []
    documents = ["".join(document) for document in documents_in(file, field, counted.append)]
    return documents, sum(counted)


def lines(texts, field="text"):
    return "".join(json.dumps({"id": n, field: text}) + "\n" for n, text in enumerate(texts)).encode()


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_documents_of_packed_files_come_out_and_every_byte_is_counted(tmp_path, suffix):
    file = tmp_path / f"data{suffix}"
    if suffix == ".jsonl":
        file.write_bytes(lines(TEXTS, "body"))
    elif suffix == ".jsonl.gz":
        file.write_bytes(gzip.compress(lines(TEXTS[:2], "body")) + gzip.compress(lines(TEXTS[2:], "body")))
    elif suffix == ".jsonl.zst":
        zstandard = pytest.importorskip("zstandard", reason="the extra gpt_pretrain[data] is not installed")
        pack = zstandard.ZstdCompressor().compress
        file.write_bytes(pack(lines(TEXTS[:2], "body")) + pack(lines(TEXTS[2:], "body")))
    else:
        pa = pytest.importorskip("pyarrow", reason="the extra gpt_pretrain[data] is not installed")
        pq = __import__("pyarrow.parquet", fromlist=["write_table"])
        pq.write_table(pa.table({"id": range(4), "body": TEXTS}), file)
    assert read(file, "body") == (TEXTS, file.stat().st_size)


def test_a_text_file_is_one_document_and_line_ends_are_those_of_python_s_own_open(tmp_path):
    file = tmp_path / "a.md"
    file.write_bytes("\ufeffone\r\ntwo\rthree\n".encode())
    assert read(file)[0] == [file.open(encoding="utf-8-sig").read()]


@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), size=st.integers(1, 7)
)
def test_a_file_read_in_chunks_cut_at_any_byte_gives_the_same_text(text, size):
    class Trickle(io.BytesIO):
        def read(self, n=-1):
            return super().read(size)

    expected = io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8-sig").read()
    assert "".join(text_pieces(Trickle(text.encode()), "x")) == expected


def test_empty_documents_are_left_out(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": ""}\n\n{"text": null}\n{"text": "a"}\n')
    assert read(file)[0] == ["a"]


def test_a_folder_gives_its_files_by_name_and_only_of_known_kinds(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "a.md", "sub/c.jsonl.gz", "d.log", "e.bin"):
        (tmp_path / name).write_text("x")
    assert [f.name for f in find_files(str(tmp_path), None).files] == ["a.md", "b.txt", "c.jsonl.gz"]
    assert [f.name for f in find_files(str(tmp_path), "*.log").files] == ["d.log"]
    assert [f.name for f in find_files(f"{tmp_path}/*.t*", None).files] == ["b.txt"]
    nothing = [
        (tmp_path, "*.rst"),
        (tmp_path, "/a/*"),
        (tmp_path / "nowhere", None),
        (f"{tmp_path}/*.rst", None),
    ]
    for path, pattern in nothing:
        with pytest.raises(InputError, match=r"data\.pa"):
            find_files(str(path), pattern)


def test_a_glob_that_goes_round_a_loop_of_links_gives_each_file_once(tmp_path):
    (tmp_path / "a.txt").touch()
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "nowhere.txt").symlink_to("nowhere.txt")
    assert find_files(f"{tmp_path}/**/*.txt", None).files == [tmp_path / "a.txt"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"fine \xff", "a.txt is not UTF-8: byte 5 is 0xff"),
        ("a b.txt", b"fine \xff", "iconv -f latin1 -t utf-8 '"),
        ("a.txt", "fine".encode("utf-16"), "iconv -f utf-16 -t utf-8 "),
        ("a.txt", "fine é".encode("utf-16-le"), "if it is UTF-16, convert it: iconv -f utf-16le"),
        ("a.txt", "é".encode()[:1], "a.txt is not UTF-8: byte 0 is 0xc3"),
        ("a.txt", b"x" * (1 << 18) + "é".encode()[:1] + b"!", "a.txt is not UTF-8: byte 262144 is 0xc3"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b'{"body": "a", "id": 1}\n', "data.text_field=text is not in"),
        ("a.jsonl", b'{"body": "a", "id": 1}\n', "it holds body, id"),
        ("a.jsonl", b'["text"]\n', "it holds a list, not an object"),
        ("a.jsonl", b'{"text": 3}\n', "is of type int, not text"),
        ("a.jsonl.gz", b"not gzip", "is damaged or cut off"),
        ("a.jsonl.gz", gzip.compress(lines(TEXTS), mtime=0)[:-12], "is damaged or cut off"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 20, "is damaged or cut off"),
        ("a.jsonl", b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "a.jsonl, line 1 is not JSON"),
        ("a.txt", b"fine \0", "a.txt is no text: byte 5 is zero\nif it is text otherwise: tr -d '\\000' < "),
        ("a.txt", b"x" * (1 << 18) + b"y\0", "a.txt is no text: byte 262145 is zero"),
        (
            "a.txt",
            b"PK\x03\x04 and letters \0",
            "a.txt is no text, it is an archive of zip or an office document",
        ),
        ("a.txt.gz", gzip.compress(b"fine \0", mtime=0), "a.txt.gz is no text: byte 5 is zero"),
        ("a.bin", b"\0\0", "holds tokens, not text: choose data=token_files"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read(file)
    assert message in str(refused.value)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.zst"])
def test_a_damaged_packed_file_is_named(tmp_path, name):
    pytest.importorskip("pyarrow" if name.endswith("parquet") else "zstandard")
    (tmp_path / name).write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match="is damaged"):
        read(tmp_path / name)


@pytest.mark.parametrize("n_lines", [1, len(TEXTS)])
def test_a_zstd_file_that_ends_between_two_lines_is_cut_off_all_the_same(tmp_path, n_lines):
    zstandard = pytest.importorskip("zstandard", reason="the extra gpt_pretrain[data] is not installed")
    packer = zstandard.ZstdCompressor().compressobj()
    whole_lines = packer.compress(lines(TEXTS[:n_lines])) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    (tmp_path / "a.jsonl.zst").write_bytes(whole_lines)
    with pytest.raises(InputError, match="is damaged or cut off: it ends inside a zstd frame"):
        read(tmp_path / "a.jsonl.zst")


def test_a_zstd_file_of_a_long_window_is_sound_and_says_how_to_unpack_it(tmp_path):
    zstandard = pytest.importorskip("zstandard", reason="the extra gpt_pretrain[data] is not installed")
    long = zstandard.ZstdCompressionParameters.from_level(3, window_log=28)
    for parameters in (long, zstandard.ZstdCompressionParameters.from_level(3, window_log=27)):
        packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        (tmp_path / "a b.jsonl.zst").write_bytes(packer.compress(lines(TEXTS)) + packer.flush())
        if parameters is not long:
            assert read(tmp_path / "a b.jsonl.zst")[0] == TEXTS
            continue
        with pytest.raises(
            InputError, match=r"window above 128 MiB .*: unpack it, zstd -d --long=31 '"
        ) as refused:
            read(tmp_path / "a b.jsonl.zst")
        assert (len(str(refused.value).splitlines()), "damaged" in str(refused.value)) == (1, False)


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY", None])
def test_a_parquet_file_that_swells_is_refused_before_it_is_held(tmp_path, monkeypatch, encoding):
    pa = pytest.importorskip("pyarrow")
    pq = __import__("pyarrow.parquet", fromlist=["write_table"])
    how = {"compression": "zstd"} | (
        {"use_dictionary": False, "column_encoding": encoding} if encoding else {}
    )
    monkeypatch.setattr("gpt_pretrain.data.files.ROWS_BYTES", 1 << 20)
    for texts in (["ab " * (2 << 20)], ["ab " * (1 << 18)] * 40):  # one row, and one that comes again
        pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", **how)
        assert (tmp_path / "a.parquet").stat().st_size < 20_000
        before = pa.total_allocated_bytes()
        with pytest.raises(InputError, match=r"a\.parquet unpacks to \d+ MiB at once, where its") as refused:
            read(tmp_path / "a.parquet")
        assert len(str(refused.value).splitlines()) == 1
        assert pa.total_allocated_bytes() - before < 16 << 20


@pytest.mark.parametrize("row_group_size", [7, 100_000])
def test_a_parquet_file_of_row_groups_of_any_size_is_read_whole(tmp_path, monkeypatch, row_group_size):
    pa = pytest.importorskip("pyarrow")
    pq = __import__("pyarrow.parquet", fromlist=["write_table"])
    monkeypatch.setattr("gpt_pretrain.data.files.ROWS_BYTES", 1 << 10)
    texts = [f"{number} words " * (1 + number % 30) for number in range(3000)]
    table = pa.table({"text": texts, "text.more": texts, "other": texts})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=row_group_size)
    assert read(tmp_path / "a.parquet")[0] == texts


def test_a_parquet_file_of_text_that_is_not_utf8_is_named(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = __import__("pyarrow.parquet", fromlist=["write_table"])
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="is damaged"):
        read(tmp_path / "a.parquet")


def test_a_parquet_file_without_the_field_says_what_it_holds(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = __import__("pyarrow.parquet", fromlist=["write_table"])
    pq.write_table(pa.table({"body": ["a"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="it holds body, n"):
        read(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="is of type int, not text"):
        read(tmp_path / "a.parquet", "n")


@pytest.mark.parametrize(("name", "module"), [("a.parquet", "pyarrow"), ("a.jsonl.zst", "zstandard")])
def test_a_missing_extra_says_how_to_install_it(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"pip install '\.\[data\]'"):
        read(tmp_path / name)


def test_a_folder_inside_the_folder_that_cannot_be_read_is_named_not_left_out(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def locked(path):  # root reads everything
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", locked)
    with pytest.raises(InputError, match="locked cannot be read: Permission denied"):
        find_files(str(tmp_path), None)


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_text("x")
    opened = type(file).open

    def locked(path, *how, **more):  # root reads everything
        if path == file:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *how, **more)

    monkeypatch.setattr(type(file), "open", locked)
    with pytest.raises(InputError, match=r"a\.txt cannot be read: Permission denied"):
        read(file)
