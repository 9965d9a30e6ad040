"""TensorFlow's checkpoints against what TensorFlow wrote: written_by_tensorflow/make_fixtures.py says how."""

import random
import time
import tracemalloc

import numpy as np
import pytest
import torch

from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.weights.bundle import read_bundle, write_bundle
from gpt_pretrain.weights.protobuf import MalformedError, read_varint
from gpt_pretrain.weights.table import _entries, read_table, write_table
from tests.weights.written_by_tensorflow import make_fixtures as fixtures

BLOCKS = fixtures.HERE / "blocks" / "every.index"


def test_every_type_and_shape_that_tensorflow_wrote_is_read_exactly():
    expected = fixtures.blocks()
    tensors = read_bundle(BLOCKS)
    assert tensors.keys() == expected.keys()
    for name, (kind, numbers) in expected.items():
        read = tensors[name].read()
        assert str(read.dtype) == f"torch.{kind}"
        assert read.shape == numbers.shape == tensors[name].shape
        assert np.array_equal(read.double().numpy(), numbers.astype(kind.replace("bfloat16", "float32")))


def test_the_fixtures_index_takes_several_blocks():
    data = BLOCKS.read_bytes()
    _, at = read_varint(data[-48:], 0)
    _, at = read_varint(data[-48:], at)
    offset, _ = read_varint(data[-48:], at)
    assert offset > 256 << 10  # TensorFlow's block size


def test_tensors_in_two_data_files_are_read():
    tensors = read_bundle(fixtures.HERE / "shards" / "merged.index")
    for name in ("part0", "part1"):
        assert np.array_equal(tensors[name].read().numpy(), fixtures.numbers(name, (4, 3)))


def test_what_we_write_we_read_bit_for_bit(tmp_path):
    generator = torch.Generator().manual_seed(0)
    shapes = {"model/h10/w": (1, 8, 24), "model/h2/b": (24,), "model/wte": (61, 8), "s": ()}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    write_bundle(tmp_path / "model.ckpt", tensors)
    read = read_bundle(tmp_path / "model.ckpt.index")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name].read(), tensors[name]) for name in tensors)


def test_we_write_the_entries_and_the_data_that_tensorflow_wrote(tmp_path):
    folder = fixtures.HERE / "gpt2"
    tensors = read_bundle(folder / "model.ckpt.index")
    write_bundle(tmp_path / "model.ckpt", {name: tensors[name].read() for name in fixtures.gpt2_shapes()})
    data = "model.ckpt.data-00000-of-00001"
    assert (tmp_path / data).read_bytes() == (folder / data).read_bytes()
    ours, theirs = ((place / "model.ckpt.index").read_bytes() for place in (tmp_path, folder))
    assert list(read_table(ours)) == list(read_table(theirs))


def test_tensorflow_reads_what_we_write(tmp_path):
    tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    tensors = {f"model/h{i}/w": torch.randn(2, 300) for i in range(200)}
    write_bundle(tmp_path / "model.ckpt", tensors)
    reader = tensorflow.train.load_checkpoint(str(tmp_path / "model.ckpt"))
    assert all(np.array_equal(reader.get_tensor(name), tensors[name]) for name in tensors)


@pytest.mark.parametrize("block_size", [64, 4096])
def test_a_table_of_many_blocks_gives_back_its_entries(block_size):
    entries = [(f"{i:05d}".encode(), bytes([i % 256]) * (i % 40)) for i in range(2000)]
    assert list(read_table(write_table(entries, block_size))) == entries


@pytest.fixture
def small_bundle(tmp_path):
    """As many kinds of entry in an index of half a kilobyte, over several blocks."""
    write_bundle(
        tmp_path / "small",
        {f"model/h{i}/ln_{k}/g": torch.full((2, i + 1), i + k / 4) for i in range(3) for k in (1, 2)},
    )
    index = tmp_path / "small.index"
    index.write_bytes(write_table(list(read_table(index.read_bytes())), block_size=128))
    return index


def _sound(index, expected):
    """Whether the tensors are read, all exact; False where they are refused in one line."""
    try:
        read = {name: stored.read() for name, stored in read_bundle(index).items()}
    except ArtifactError as error:
        return _refused(error)
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], expected[name]) for name in expected)
    return True


def _refused(error):
    assert len(str(error).splitlines()) == 1
    return False


def _mutate(data, draw):
    """One to three bytes changed, removed, doubled or cut off."""
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        data = data or bytearray(1)
        at = draw.randrange(len(data))
        match draw.randrange(8):
            case 0:
                del data[at]
            case 1:
                data.insert(at, draw.randrange(256))
            case 2:
                del data[at:]
            case 3:
                data[at] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
            case _:
                data[at] ^= 1 << draw.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("file", ["small.index", "small.data-00000-of-00001"])
def test_mutations_give_the_exact_numbers_or_one_line(small_bundle, file, count):
    """Of the index and of the data file: 20,000 together."""
    expected = {name: stored.read().clone() for name, stored in read_bundle(small_bundle).items()}
    target = small_bundle.with_name(file)
    good, draw, slowest, refused = target.read_bytes(), random.Random(0), 0.0, 0
    for _ in range(count):
        mutated = _mutate(good, draw)
        target.write_bytes(mutated)
        began = time.perf_counter()
        refused += not _sound(small_bundle, expected)
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 1
    assert refused > 0.9 * count


def test_mutated_entries_behind_a_correct_checksum_end_in_numbers_or_one_line(small_bundle):
    """The parser itself, with nothing before it that notices the mutation."""
    entries = list(read_table(small_bundle.read_bytes()))
    draw, refused = random.Random(1), 0
    for _ in range(1000):
        changed = list(entries)
        at = draw.randrange(len(changed))
        key, value = changed[at]
        changed[at] = (
            (key, _mutate(value, draw)) if draw.random() < 0.8 else (_mutate(key or b"x", draw), value)
        )
        small_bundle.write_bytes(write_table(changed))
        try:
            {name: stored.read() for name, stored in read_bundle(small_bundle).items()}
        except ArtifactError as error:
            refused += not _refused(error)
    assert refused > 500


def test_mutated_blocks_end_in_entries_or_one_error(small_bundle):
    block = write_table([(f"model/h{i}/w".encode(), bytes(20)) for i in range(40)])
    block = block[: block.index(b"\0\0\0\0\1\0\0\0")]
    draw, refused = random.Random(2), 0
    for _ in range(5000):
        try:
            list(_entries(_mutate(block, draw)))
        except MalformedError:
            refused += 1
    assert refused > 500


def test_a_shape_of_terabytes_is_refused_before_anything_is_allocated(small_bundle):
    from gpt_pretrain.weights.protobuf import bytes_field, number_field

    entries = list(read_table(small_bundle.read_bytes()))
    huge = b"".join(bytes_field(2, number_field(1, 1 << 40)) for _ in range(3))
    entries[1] = (entries[1][0], number_field(1, 1) + bytes_field(2, huge) + number_field(5, 1 << 62))
    small_bundle.write_bytes(write_table(entries))
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="cannot have"):
        read_bundle(small_bundle)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_memory_stays_below_twice_the_file():
    tracemalloc.start()
    tensors = read_bundle(BLOCKS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(tensors) > 300
    assert peak < 2 * BLOCKS.stat().st_size + (1 << 19)  # beside it: Python's own objects, 1 kB a tensor


def test_a_data_file_cut_short_or_missing_is_refused(small_bundle):
    data = small_bundle.with_name("small.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="outside the data file"):
        read_bundle(small_bundle)
    data.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        read_bundle(small_bundle)
