"""Hostile and damaged files: one line, exit code 3, nothing allocated. Beside each, the sound sample it was
made from, or what an unguarded reader does with it.
"""

import json
import pickle
import struct
import tracemalloc
import zipfile
from contextlib import suppress

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.weights.read import open_weights
from gpt_pretrain.weights.safetensors_file import read_safetensors
from tests.weights import foreign
from tests.weights.foreign import reference

SMALL = (8, 2, 2)


def refused(path, match="", n_heads=2):
    """Open `path`, which must be refused in one line and with little memory."""
    tracemalloc.start()
    with pytest.raises(ArtifactError, match=match) as error:
        open_weights(path, n_heads=n_heads)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(error.value).splitlines()) == 1
    assert error.value.exit_code == 3
    assert peak < 8 << 20


@pytest.fixture
def sound(tmp_path):
    """A sound folder of the hub's kind, and its one file of weights."""
    foreign.huggingface_without_prefix(reference(SMALL), tmp_path)
    open_weights(tmp_path)
    return tmp_path / "model.safetensors"


def header_of(file):
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_header(file, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_a_header_that_is_longer_than_the_file_is_refused(sound):
    content = sound.read_bytes()
    for length in (len(content), 1 << 40, (1 << 64) - 1):
        sound.write_bytes(struct.pack("<Q", length) + content[8:])
        refused(sound)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100, -1])
def test_a_file_cut_short_is_refused(sound, kept):
    sound.write_bytes(sound.read_bytes()[:kept])
    refused(sound)


def test_bytes_that_belong_to_no_tensor_are_refused(sound):
    sound.write_bytes(sound.read_bytes() + b"x")
    refused(sound, "belong to no tensor")


def test_terabytes_are_refused_without_allocating_them(sound):
    header, data = header_of(sound)
    header["wte.weight"]["shape"] = [1 << 40, 8]
    write_header(sound, header, data)
    refused(sound, "needs 35184372088832 bytes")
    header["wte.weight"]["data_offsets"][1] = header["wte.weight"]["data_offsets"][0] + (1 << 45)
    write_header(sound, header, data)
    refused(sound)


def test_two_tensors_on_one_span_are_refused(tmp_path):
    file = tmp_path / "model.safetensors"
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    write_header(file, {"a": entry, "b": entry}, bytes(8))
    with pytest.raises(SafetensorError):  # the control
        load_file(file)
    with pytest.raises(ArtifactError, match="shares bytes"):
        read_safetensors(file)


def test_a_name_given_twice_is_refused_which_the_library_accepts(tmp_path):
    file = tmp_path / "model.safetensors"
    entry = '"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    write_header(file, f"{{{entry},{entry}}}".encode(), bytes(8))
    assert len(load_file(file)) == 1  # the control
    with pytest.raises(ArtifactError, match="a name comes twice"):
        read_safetensors(file)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F31"},
        {"dtype": ["F32"]},
        {"dtype": "F64"},
        {"shape": None},
        {"shape": [-1, -8]},
        {"shape": [2.0]},
        {"shape": [True]},
        {"shape": [1] * 200_000},
        {"shape": "abc"},
        {"data_offsets": [0]},
        {"data_offsets": [8, 0]},
        {"data_offsets": [-8, 0]},
        {"data_offsets": "ab"},
    ],
    ids=lambda entry: str(entry)[:30],
)
def test_an_entry_that_makes_no_sense_is_refused(sound, entry):
    header, data = header_of(sound)
    header["ln_f.weight"] |= entry
    write_header(sound, header, data)
    refused(sound)


@pytest.mark.parametrize(
    "header", [b"[]", b"{", b"\xff\xff", b"{" * 100_000, b'{"a": 1}', b'{"__metadata__": 3}', b"1"]
)
def test_a_header_that_is_no_header_is_refused(sound, header):
    write_header(sound, header.ljust(16), b"")
    refused(sound)


def test_a_missing_and_an_unknown_tensor_are_named(sound):
    state = load_file(sound)
    for i in range(2):
        del state[f"h.{i}.attn.bias"]  # a mask may be there or not
    save_file(state, sound)
    open_weights(sound)
    norm = state.pop("h.1.ln_2.bias")
    save_file(state, sound)
    refused(sound, r"no tensor h\.1\.ln_2\.bias")
    save_file(state | {"h.1.ln_2.bias": norm, "h.1.backdoor": norm.clone()}, sound)
    refused(sound, r"no part of a GPT-2: h\.1\.backdoor")


@pytest.mark.parametrize(
    "wrong", [torch.zeros(9), torch.zeros(8, 1), torch.zeros(8, dtype=torch.int32), torch.zeros(8).double()]
)
def test_a_wrong_shape_or_type_is_refused_by_name(sound, wrong):
    save_file(load_file(sound) | {"h.1.ln_2.bias": wrong}, sound)
    refused(sound, r"h\.1\.ln_2\.bias is")


@pytest.mark.parametrize(
    "place", ["../outside.safetensors", "/etc/passwd", "sub/model.safetensors", "", ".", 7, None]
)
def test_an_index_that_points_elsewhere_is_refused(tmp_path, place):
    outside = tmp_path / "outside.safetensors"
    folder = tmp_path / "model"
    folder.mkdir()
    foreign.huggingface_sharded(reference((64, 2, 2)), folder)
    open_weights(folder)  # the control
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    name = "transformer.wte.weight"
    save_file({name: torch.zeros(1)}, outside)
    content["weight_map"][name] = place
    index.write_text(json.dumps(content))
    refused(folder)


def test_an_index_and_its_files_must_agree(tmp_path):
    foreign.huggingface_sharded(reference((64, 2, 2)), tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"].pop("transformer.ln_f.bias")
    index.write_text(json.dumps(content))
    refused(tmp_path, r"disagree about transformer\.ln_f\.bias")
    next(tmp_path.glob("model-00001*")).unlink()
    refused(tmp_path, "which is missing")


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def with_pickle(file, content):
    """A copy of torch's zip with another pickle in it."""
    with zipfile.ZipFile(file) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in records.items():
            archive.writestr(name, content if name.endswith("data.pkl") else data)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, protocol):
    file, marker = tmp_path / "gpt2.pth", tmp_path / "ran"
    foreign.book(reference(SMALL), tmp_path)
    hostile = pickle.dumps({"tok_emb.weight": Payload(marker)}, protocol)
    with_pickle(file, hostile)
    refused(file, "is refused: its pickle")
    assert not marker.exists()
    file.write_bytes(hostile)  # not even a zip
    refused(file)
    assert not marker.exists()
    pickle.loads(hostile)["tok_emb.weight"].close()  # the control: it is hostile
    assert marker.exists()


def test_a_pickle_cannot_ask_for_memory(tmp_path):
    """weights_only allows `bytearray`, which allocates what it is told."""
    foreign.book(reference(SMALL), tmp_path)
    open_weights(tmp_path, n_heads=2)  # the control
    with_pickle(tmp_path / "gpt2.pth", b"\x80\x02cbuiltins\nbytearray\nK\x08\x85R.")
    assert torch.load(tmp_path / "gpt2.pth", weights_only=True) == bytearray(8)  # torch lets it through
    refused(tmp_path, "asks for builtins bytearray")


def test_a_compressed_archive_is_refused(tmp_path):
    foreign.book(reference(SMALL), tmp_path)
    file = tmp_path / "gpt2.pth"
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, bytes(50 << 20) if name.endswith("/0") else b"")
    assert file.stat().st_size < 1 << 20  # the control: a megabyte that would become fifty
    refused(file, "compressed")


@pytest.mark.parametrize("position", range(0, 100, 7))
def test_a_torch_file_cut_short_is_refused(tmp_path, position):
    foreign.nanogpt(reference(SMALL), tmp_path)
    file = tmp_path / "ckpt.pt"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * position // 100])
    refused(file)


@pytest.mark.parametrize(
    "content", [{"model": 3}, [1, 2], {"model": {}}, {"model": {"a": 1}}, {1: torch.zeros(1)}]
)
def test_a_torch_file_without_parameters_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    refused(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff", b'{"weight_map": 3}', b"[" * 100_000]
)
def test_broken_json_beside_the_weights_ends_in_one_line(sound, name, content):
    (sound.parent / name).write_bytes(content)
    if name == "config.json":
        refused(sound.parent)
    else:  # no index: the folder is read without it
        open_weights(sound.parent)


def test_flipped_bytes_of_a_header_end_in_a_refusal_or_a_model(sound):
    content = bytearray(sound.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    for at in range(0, 8 + length, 3):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        sound.write_bytes(flipped)
        with suppress(ArtifactError):
            open_weights(sound, n_heads=2)


def test_the_library_reads_what_we_call_sound(sound):
    """Our stricter reader gives what the safetensors library gives."""
    ours, _ = read_safetensors(sound)
    with safe_open(sound, "pt") as theirs:
        assert set(theirs.keys()) == ours.keys()
        assert all(torch.equal(theirs.get_tensor(name), ours[name].read()) for name in ours)


def test_a_folder_without_weights_and_a_file_of_text_are_refused(tmp_path):
    refused(tmp_path, "holds no weights")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path / "notes.txt", "none of the files we read")


@pytest.mark.parametrize("write", [foreign.huggingface_sharded, foreign.openai, foreign.book])
def test_a_link_out_of_the_folder_is_refused_and_not_opened(tmp_path, write):
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    write(reference((64, 2, 2)), folder)
    open_weights(folder, n_heads=2)  # the control
    largest = max(folder.iterdir(), key=lambda file: file.stat().st_size)
    largest.rename(elsewhere / largest.name)
    (folder / largest.name).symlink_to(elsewhere / largest.name)
    refused(folder, "leads out of its folder")


def test_the_hubs_own_cache_of_links_is_read(tmp_path):
    snapshot, blobs = tmp_path / "snapshots" / "607a30d", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    foreign.huggingface(reference(SMALL), snapshot)
    for number, file in enumerate(list(snapshot.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(blobs / str(number))
    assert open_weights(snapshot).config.emb_dim == 8


def test_a_tensor_that_an_index_lists_twice_is_refused(tmp_path):
    foreign.huggingface_sharded(reference((64, 2, 2)), tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    entry = '"transformer.wte.weight": '
    twice = index.read_text().replace(entry, f'{entry}"a.safetensors", {entry}')
    index.write_text(twice)
    assert json.loads(twice)["weight_map"]["transformer.wte.weight"] != "a.safetensors"  # the control
    refused(index, "none of the files we read")


def test_a_record_that_comes_twice_in_an_archive_is_refused(tmp_path):
    foreign.book(reference(SMALL), tmp_path)
    file = tmp_path / "gpt2.pth"
    with zipfile.ZipFile(file, "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        archive.writestr(name, pickle.dumps({}))  # zipfile warns, and writes it
    refused(file, "a record comes twice")
