"""Other programs' token files are read in place, and what is wrong with one is said with its place."""

import os

import numpy as np
import pytest

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
    assert corpus.val_bytes_per_token == 1  # of byte tokens


def test_shards_by_a_glob_come_in_the_order_of_their_names(tmp_path, load):
    for number in range(3):
        llm_c(tmp_path / f"fineweb_train_{number:06d}.bin", IDS[number * 100 : number * 100 + 100])
    corpus = load_tokens(load, f"{tmp_path}/fineweb_train_*.bin", val_fraction=0.01)
    assert corpus.train[:].tolist() == IDS[:297].tolist()


def test_bytes_a_token_leave_out_the_end_of_a_text(tmp_path, load):
    ids = np.array([65] * 90 + [256] * 5 + [66] * 5)
    corpus = load_tokens(load, nanogpt(tmp_path / "a.bin", ids))
    assert corpus.val_bytes_per_token == 0.5


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
