"""The sorted table in which TensorFlow keeps a checkpoint's index: LevelDB's, without compression.

A table is blocks of entries, an index block that says where they are, and a footer that says where the index
block is (github.com/google/leveldb, doc/table_format.md). Every block carries its checksum.
"""

from collections.abc import Iterable, Iterator

from gpt_pretrain.weights.crc32c import crc32c, masked
from gpt_pretrain.weights.protobuf import MalformedError, read_varint, write_varint

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
FOOTER = 48  # bytes: two handles, padded, and the magic number
TRAILER = 5  # bytes after a block: its compression and its checksum
MAX_KEY = 1024  # bytes: entries share prefixes, so a small file could otherwise claim very many long keys


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a table in the order of their keys. Raises MalformedError."""
    if len(data) < FOOTER or data[-8:] != MAGIC:
        raise MalformedError("it does not end as a table does")
    footer = data[-FOOTER:]
    _, at = _handle(footer, 0)  # of the meta block, which is empty
    index, at = _handle(footer, at)
    if any(footer[at : FOOTER - 8]):
        raise MalformedError("its footer is padded with more than zeros")
    last: bytes | None = None
    end = 0
    for _, handle in _entries(_block(data, *index)):
        (offset, size), _ = _handle(handle, 0)
        if offset < end:
            raise MalformedError("its blocks overlap")
        end = offset + size + TRAILER
        for key, value in _entries(_block(data, offset, size)):
            if last is not None and key <= last:
                raise MalformedError("its keys are out of order")
            last = key
            yield key, value


def write_table(entries: Iterable[tuple[bytes, bytes]], block_size: int = 4096) -> bytes:
    """A table of entries that come in the order of their keys."""
    table, index, block, last = b"", [], _Block(), b""

    def finish() -> None:
        nonlocal table, block
        content = block.content()
        handle = write_varint(len(table)) + write_varint(len(content))
        table += content + _trailer(content)
        # The format takes any key from the block's last to below the next one's first.
        index.append((last, handle))
        block = _Block()

    for key, value in entries:
        if block.size() >= block_size:
            finish()
        block.add(key, value)
        last = key
    finish()
    handles = b""  # each where its block begins and how long it is
    for contents in ([], index):  # the meta block, empty, then the index
        block = _Block()
        for key, handle in contents:
            block.add(key, handle)
        content = block.content()
        handles += write_varint(len(table)) + write_varint(len(content))
        table += content + _trailer(content)
    return table + handles.ljust(FOOTER - 8, b"\0") + MAGIC


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def _block(data: bytes, offset: int, size: int) -> bytes:
    """A block's entries, its checksum compared."""
    if offset + size + TRAILER > len(data) - FOOTER:
        raise MalformedError("a block lies outside the file")
    content, trailer = data[offset : offset + size], data[offset + size : offset + size + TRAILER]
    # One byte for the compression, four for the checksum of the entries and that byte.
    if trailer[0] != 0:
        raise MalformedError("a block is compressed, as TensorFlow writes none")
    if trailer[1:] != _trailer(content)[1:]:
        raise MalformedError("a block is not what its checksum says")
    return content


def _trailer(content: bytes) -> bytes:
    return b"\0" + masked(crc32c(content + b"\0")).to_bytes(4, "little")


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    # Behind the entries: 4 bytes for each place where a key stands in full, to search from, and their count.
    # Reading in order needs none of them.
    n_restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * n_restarts
    if len(block) < 4 or end < 0:
        raise MalformedError("a block is cut short")
    at, key = 0, b""
    while at < end:
        # How much of the key before it begins with, how much it adds to that, how long its value is.
        shared, at = read_varint(block, at)
        unshared, at = read_varint(block, at)
        length, at = read_varint(block, at)
        if shared > len(key) or shared + unshared > MAX_KEY or at + unshared + length > end:
            raise MalformedError("an entry reaches beyond its block")
        key = key[:shared] + block[at : at + unshared]
        yield key, block[at + unshared : at + unshared + length]
        at += unshared + length


class _Block:
    """A block under construction: keys as what they add to the key before, in full at every 16th entry."""

    def __init__(self) -> None:
        self.entries, self.restarts, self.count, self.last = bytearray(), [0], 0, b""

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self.count % 16:
            while shared < min(len(key), len(self.last)) and key[shared] == self.last[shared]:
                shared += 1
        elif self.count:
            self.restarts.append(len(self.entries))
        self.entries += write_varint(shared) + write_varint(len(key) - shared) + write_varint(len(value))
        self.entries += key[shared:] + value
        self.last, self.count = key, self.count + 1

    def size(self) -> int:
        return len(self.entries)

    def content(self) -> bytes:
        restarts = b"".join(place.to_bytes(4, "little") for place in self.restarts)
        return bytes(self.entries) + restarts + len(self.restarts).to_bytes(4, "little")
