"""Other programs' token files are read in place, and what is wrong with one is said with its place."""

import hashlib
import os

import numpy as np
import pytest

from gpt_pretrain.data.notes import combined
from gpt_pretrain.data.token_files import recognised
from gpt_pretrain.errors import ArtifactError, InputError

IDS = np.arange(1000) % 257


def nanogpt(path, ids=IDS):
    ids.astype(np.uint16).tofile(path)  # nanoGPT, data/openwebtext/prepare.py
    return path


def llm_c(path, ids=IDS, magic=20240520, version=1, dtype=np.uint16, n=None):
    header = np.zeros(256, dtype=np.int32)  # llm.c, dev/data/data_common.py
    header[:3] = magic, version, len(ids) if n is None else n
    with path.open("wb") as file:
        file.write(header.tobytes())
        file.write(ids.astype(dtype).tobytes())
    return path


def load_tokens(load, path, **settings):
    return load(path, **{"source": "token_files", "split": "tokens", **settings})


@pytest.mark.parametrize(
    "write",
    [nanogpt, llm_c, lambda path: llm_c(path, magic=20240801, version=7, dtype=np.uint32)],
    ids=["nanogpt", "llm.c", "llm.c llama-3"],
)
def test_token_files_are_read_in_place_and_split_by_tokens(tmp_path, load, cache, write):
    corpus = load_tokens(load, write(tmp_path / "a.bin"))
    assert corpus.train[:].tolist() == IDS[:900].tolist()
    assert corpus.val[:].tolist() == IDS[900:].tolist()
    assert not list(cache.rglob("*.bin"))


def test_nanogpt_s_train_and_val_files_are_the_splits(tmp_path, load):
    train, val = nanogpt(tmp_path / "train.bin"), nanogpt(tmp_path / "val.bin", IDS[:100])
    corpus = load_tokens(load, train, val_path=str(val))
    assert (len(corpus.train), len(corpus.val)) == (1000, 100)


def test_shards_by_a_glob_come_in_the_order_of_their_names(tmp_path, load):
    for number in range(3):
        llm_c(tmp_path / f"fineweb_train_{number:06d}.bin", IDS[number * 100 : number * 100 + 100])
    corpus = load_tokens(load, f"{tmp_path}/fineweb_train_*.bin", val_fraction=0.01)
    assert corpus.train[:].tolist() == IDS[:297].tolist()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: p.write_bytes(b"\0" * 101), "101 bytes are not a whole number of uint16 tokens"),
        (lambda p: p.write_bytes(b""), "is empty: it holds no tokens"),
        (lambda p: llm_c(p, n=2000), "its header says 2000 tokens, so 5024 bytes; it has 3024"),
        (lambda p: llm_c(p, n=-1), "damaged or cut off"),
        (lambda p: os.truncate(llm_c(p), 1000), "its header says 1000 tokens, so 3024 bytes; it has 1000"),
        (lambda p: llm_c(p, version=9), "has a header of 20240520 version 9"),
        (
            lambda p: nanogpt(p, np.array([1, 2, 300, 300])),
            "holds id 300 at token 2, beyond the",
        ),
    ],
)
def test_a_token_file_that_is_wrong_is_an_artifact_error(tmp_path, load, write, message):
    write(tmp_path / "a.bin")
    with pytest.raises(ArtifactError) as refused:
        load_tokens(load, tmp_path / "a.bin")
    assert message in str(refused.value)
    assert "a.bin" in str(refused.value)


def test_text_is_not_taken_for_tokens_and_tokens_not_for_text(tmp_path, load):
    tokens, text = nanogpt(tmp_path / "a.bin"), tmp_path / "a.txt"
    text.write_bytes(IDS.astype(np.uint8).tobytes())  # of even length: as good as uint16
    with pytest.raises(InputError, match=r"a\.txt holds text, not tokens: choose data=text_files"):
        load_tokens(load, tokens, val_path=str(text))
    with pytest.raises(InputError, match=r"a\.bin holds tokens, not text: choose data=token_files"):
        load(tokens)


def test_a_changed_file_is_checked_again(tmp_path, load):
    file = nanogpt(tmp_path / "a.bin", np.resize(IDS, 1 << 20))
    first = load_tokens(load, file).fingerprints
    assert load_tokens(load, file).fingerprints == first
    ids = np.resize(IDS, 1 << 20)
    ids[12345] = 999
    nanogpt(file, ids)
    with pytest.raises(ArtifactError, match="id 999 at token 12345"):
        load_tokens(load, file)


def test_characters_cannot_be_counted_in_tokens(tmp_path, load):
    with pytest.raises(InputError, match=r"set data\.split=tokens"):
        load_tokens(load, nanogpt(tmp_path / "a.bin"), split="characters")


WIDE = ["uint32", "int32", "int64"]


@pytest.mark.parametrize("token_dtype", ["auto", "as written"])
@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("n", [1000, 600_000])
def test_wide_ids_without_a_header_are_recognised_or_read_as_said(tmp_path, load, dtype, token_dtype, n):
    ids = np.resize(IDS, n)
    ids.astype(dtype).tofile(tmp_path / "a.bin")
    said = dtype if token_dtype == "as written" else "auto"
    corpus = load_tokens(load, tmp_path / "a.bin", token_dtype=said)
    assert corpus.train[:].tolist() == ids[: n * 9 // 10].tolist()
    assert len(corpus.val) == n // 10
    shown = "uint32" if (said, dtype) == ("auto", "int32") else dtype
    assert corpus.remarks() == [f"{tmp_path / 'a.bin'}: ids read as {shown} (data.token_dtype)"]


def test_ids_beyond_16_bits_are_recognised_by_a_vocabulary_that_holds_them():
    ids = np.arange(60_000, 100_000)
    for dtype in ("uint32", "int64"):
        content = ids.astype(dtype).tobytes()
        assert recognised(content, len(content), 100_277) == (dtype, None)


@pytest.mark.parametrize("vocab_size", [257, 50257, 100_277])
def test_uint16_of_real_text_is_uint16_as_ever(vocab_size):
    ids = np.random.default_rng(0).integers(0, min(vocab_size, 65536), 4096).astype(np.uint16)
    for tokens in (ids, np.zeros(4096, np.uint16), np.array([5, 0, 0, 0], np.uint16)):
        assert recognised(tokens.tobytes(), tokens.nbytes, vocab_size) == ("uint16", None)


def test_the_fingerprint_of_uint16_is_as_it_was_and_another_type_has_another(tmp_path, load):
    file = nanogpt(tmp_path / "a.bin")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:32]
    (usual,) = load_tokens(load, file).fingerprints.values()
    assert usual == combined(digest)
    np.array([1, 2] * 500).astype(np.uint32).tofile(file)
    as_said = [
        load_tokens(load, file, token_dtype=name).fingerprints[str(file)] for name in ("uint16", "uint32")
    ]
    assert as_said[0] != as_said[1]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: IDS.astype(">i8").tofile(p), "data.token_dtype"),
        (lambda p: IDS.astype(">u4").tofile(p), "data.token_dtype"),
        (lambda p: (IDS + 300).astype("<i8").tofile(p), "3 of 4 are 0: ids of 64 bits"),
        (lambda p: (IDS + 300).astype("<u4").tofile(p), "1 of 2 are 0: ids of 32 bits"),
        (lambda p: np.where(IDS % 7, IDS, -1).astype("<i8").tofile(p), "data.token_dtype"),
        (lambda p: np.where(IDS % 7, IDS, -100).astype("<i4").tofile(p), "data.token_dtype"),
        (lambda p: IDS.astype("<f4").tofile(p), "data.token_dtype"),
        (lambda p: IDS.astype("<f8").tofile(p), "data.token_dtype"),
        (lambda p: IDS.astype(">u2").tofile(p), "big-endian uint16"),
        (lambda p: IDS[:255].astype("u1").tofile(p), "not a whole number of uint16"),
        (lambda p: p.write_text("The statement is used for text. " * 20), "it is text"),
        (lambda p: np.save(p.open("wb"), IDS), "an array of numpy's"),
    ],
)
def test_what_can_be_no_uint16_is_refused_with_the_setting(tmp_path, load, write, message):
    write(tmp_path / "a.bin")
    with pytest.raises(ArtifactError) as refused:
        load_tokens(load, tmp_path / "a.bin")
    assert message in str(refused.value)


def test_floats_whose_halves_are_ids_of_a_large_vocabulary_are_no_tokens():
    content = (np.arange(4000) % 1000 + 300).astype("<f4").tobytes()
    assert "float32" in (recognised(content, len(content), 50257)[1] or "")


def test_a_type_that_is_said_is_checked_against_size_header_and_ids(tmp_path, load):
    nanogpt(tmp_path / "a.bin", IDS[:999])
    with pytest.raises(ArtifactError, match="1998 bytes are not a whole number of int64 tokens"):
        load_tokens(load, tmp_path / "a.bin", token_dtype="int64")
    with pytest.raises(InputError, match=r"data\.token_dtype=int64, but the header of .* says uint16"):
        load_tokens(load, llm_c(tmp_path / "b.bin"), token_dtype="int64")
    (IDS - 1).astype("int64").tofile(tmp_path / "c.bin")
    with pytest.raises(ArtifactError, match="holds id -1, below 0"):
        load_tokens(load, tmp_path / "c.bin", token_dtype="int64")
    with pytest.raises(InputError, match=r"data\.token_dtype is not read by data=text_files"):
        load(tmp_path / "c.bin", token_dtype="int64")


def test_each_file_of_a_folder_has_its_own_type(tmp_path, load):
    nanogpt(tmp_path / "a.bin", IDS[:500])
    IDS[500:].astype("int64").tofile(tmp_path / "b.BIN")
    corpus = load_tokens(load, tmp_path, val_fraction=0.01)
    assert corpus.train[:].tolist() == IDS[:990].tolist()
