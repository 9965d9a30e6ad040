"""Documents in files of text, .jsonl (or .ndjson) and .parquet, the first two packed as .gz or .zst too.
Text comes in pieces, so a file may be larger than memory; a document of .jsonl or .parquet is held whole.
"""

import codecs
import gzip
import io
import itertools
import shlex
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from gpt_pretrain.data.kinds import kind_of, what_begins_with, why_no_text
from gpt_pretrain.errors import InputError
from gpt_pretrain.foreign import parse_json

Document = Iterable[str]  # its text in pieces of any length
OnBytes = Callable[[int], None]  # told how many bytes of the files have been read, for the progress bar

CHUNK = 1 << 18  # bytes; a fifth faster than 1 MiB, which no longer fits a core's cache
ZSTD_CHUNK = 1 << 10  # bytes to unpack at once: some kB of text, and of what is made to swell, 32 MiB
ZSTD_WINDOW = 1 << 27  # bytes that its library unpacks back to, and holds in memory
LINE_BYTES = 1 << 30  # the longest line of .jsonl
PACKED_LINE_BYTES = (
    16 << 20
)  # and of a packed file, of which a few kB may hold terabytes: three times in memory
ROWS_BYTES = 64 << 20  # of .parquet, that any file may unpack to at once: some times as much in memory
MOST_SWOLLEN = 100  # and that a larger file may, times its size: text packs to a third, tables to a thirtieth


def documents_in(file: Path, text_field: str, on_bytes: OnBytes) -> Iterator[Document]:
    """The documents of one file. Raises InputError that names the file, and the line where there is one."""
    if why := why_no_text(file):
        raise InputError(f"{file} {why}")
    kind = kind_of(file)
    try:
        if kind == ".parquet":
            yield from _rows(file, text_field, on_bytes)
        elif kind == ".jsonl":
            yield from _lines(file, text_field, on_bytes)
        else:
            with (
                io.BufferedReader(_Counted(file, on_bytes), CHUNK) as packed,
                _unpacked(file, packed) as stream,
            ):
                yield text_pieces(stream, str(file))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error


def text_of(row: Any, text_field: str, place: str) -> str:
    """What a row of .jsonl, .parquet or a data set has in `text_field`; "" for null. Raises InputError."""
    if not isinstance(row, dict) or text_field not in row:
        fields = ", ".join(row) if isinstance(row, dict) else f"a {type(row).__name__}, not an object"
        raise InputError(f"data.text_field={text_field} is not in {place}: it holds {fields}")
    text = row[text_field]
    if text is not None and not isinstance(text, str):
        raise InputError(
            f"data.text_field={text_field} of {place} is of type {type(text).__name__}, not text: "
            "name a field of text"
        )
    return text or ""


def text_pieces(stream: Any, name: str) -> Iterator[str]:
    """UTF-8 text of a binary stream; line ends become \\n as Python's own open() has it, a leading byte order
    mark goes. Raises InputError that names the first bad byte.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    n_read, beginning = 0, b""
    while True:
        chunk = _read(stream.read, CHUNK, name)
        beginning = beginning or chunk
        n_read += len(chunk)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            if what := what_begins_with(beginning):
                raise InputError(f"{name} is not UTF-8, it is {what}") from error
            place = n_read - len(error.object) + error.start
            is_utf16 = place == 0 and error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            if b"\0" in chunk and not is_utf16:
                raise InputError(_why_zeros(chunk, beginning, n_read - len(chunk), name)) from error
            encoding = "utf-16" if is_utf16 else "latin1"
            raise InputError(
                f"{name} is not UTF-8: byte {place} is {error.object[error.start]:#04x}\n"
                f"convert it first, as in: iconv -f {encoding} -t utf-8 {shlex.quote(name)} > utf8.txt"
            ) from error
        if b"\0" in chunk:
            raise InputError(_why_zeros(chunk, beginning, n_read - len(chunk), name))
        if text:
            yield text
        if not chunk:
            return


def _why_zeros(chunk: bytes, beginning: bytes, offset: int, name: str) -> str:
    """No text holds a byte of zero, though UTF-8 would allow it; `chunk` begins at byte `offset`."""
    if what := what_begins_with(beginning):
        return f"{name} is no text, it is {what}"
    place = f"{name} is no text: byte {offset + chunk.index(0)} is zero"
    if chunk.count(0) * 4 >= len(chunk):
        return (
            f"{place}\nif it is UTF-16, convert it: iconv -f utf-16le -t utf-8 {shlex.quote(name)} > utf8.txt"
        )
    return f"{place}\nif it is text otherwise: tr -d '\\000' < {shlex.quote(name)} > clean.txt"


def _read(read: Callable[[int], bytes], size: int, name: str) -> bytes:
    """`read(size)` of a stream that may be packed. Raises InputError where it is damaged."""
    try:
        return read(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{name} is damaged or cut off: {error}") from error
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from error


class _Counted(io.RawIOBase):
    """A file that tells how many of its bytes have been read, whatever unpacks them."""

    def __init__(self, file: Path, on_bytes: OnBytes) -> None:
        self._file, self._on_bytes = file.open("rb", buffering=0), on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self._on_bytes(count)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _lines(file: Path, text_field: str, on_bytes: OnBytes) -> Iterator[Document]:
    with io.BufferedReader(_Counted(file, on_bytes), CHUNK) as packed, _unpacked(file, packed) as stream:
        longest, remedy = (
            (LINE_BYTES, "split it")
            if stream is packed
            else (PACKED_LINE_BYTES, "unpack the file, or split it")
        )
        for number in itertools.count(1):
            line = _read(stream.readline, longest, str(file))
            if not line:
                return
            if len(line) == longest:
                raise InputError(f"{file}, line {number} is longer than {longest >> 20} MiB: {remedy}")
            if line.strip():
                place = f"{file}, line {number}"
                try:
                    row = parse_json(line)
                except ValueError as error:
                    raise InputError(f"{place} is not JSON: {error}") from error
                if text := text_of(row, text_field, place):
                    yield [text]


def _unpacked(file: Path, packed: Any) -> IO[bytes]:
    if file.suffix.lower() == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=packed), CHUNK)
    if file.suffix.lower() == ".zst":
        return io.BufferedReader(_Zstd(_zstandard(file), packed, file), CHUNK)
    return packed


class _Zstd(io.RawIOBase):
    """The text of zstd frames. The library's own reader takes a file that ends inside a frame for whole."""

    def __init__(self, library: Any, packed: Any, file: Path) -> None:
        self._library, self._decompressor = library, library.ZstdDecompressor()
        self._packed, self._file = packed, file
        self._frame: Any = None  # begun, not ended
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises EOFError as gzip does."""
        while not self._text and (chunk := self._packed.read(ZSTD_CHUNK)):
            self._text = memoryview(self._unpack(chunk))
        if not self._text and self._frame is not None:
            raise EOFError("it ends inside a zstd frame")
        count = min(len(buffer), len(self._text))
        buffer[:count], self._text = self._text[:count], self._text[count:]
        return count

    def _unpack(self, chunk: bytes) -> bytes:
        text = b""
        while chunk:
            self._frame = self._frame or self._decompressor.decompressobj()
            try:
                text += self._frame.decompress(chunk)
            except self._library.ZstdError as error:
                if "too much memory" in str(error):
                    raise InputError(
                        f"{self._file} was packed with a window above {ZSTD_WINDOW >> 20} MiB (zstd --long): "
                        f"unpack it, zstd -d --long=31 {shlex.quote(str(self._file))}, and give the result"
                    ) from error
                raise EOFError(str(error)) from error
            chunk = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        return text


def _rows(file: Path, text_field: str, on_bytes: OnBytes) -> Iterator[Document]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra(f"{file}: .parquet files need pyarrow") from error
    try:
        with pq.ParquetFile(file) as table:
            text_of(dict.fromkeys(table.schema_arrow.names), text_field, str(file))  # a file may have no rows
            n_rows, share = max(1, table.metadata.num_rows), file.stat().st_size
            most = max(ROWS_BYTES, share * MOST_SWOLLEN)
            for group in range(table.num_row_groups):
                n_bytes = _unpacked_bytes(table.metadata.row_group(group), text_field)
                _check_swollen(n_bytes, most, file)
                # A dictionary's entry may stand in each row, which n_bytes does not count.
                n_at_once = min(256, max(4, 4 * ROWS_BYTES // max(1, n_bytes)))
                for batch in table.iter_batches(n_at_once, row_groups=[group], columns=[text_field]):
                    _check_swollen(batch.nbytes, most, file)
                    for row in batch.to_pylist():
                        if text := text_of(row, text_field, str(file)):
                            yield [text]
                    on_bytes(share * len(batch) // n_rows)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no parquet file or is damaged: {error}") from error


def _unpacked_bytes(group: Any, text_field: str) -> int:
    """What a row group of .parquet holds in `text_field`, as its file says."""
    columns = (group.column(number) for number in range(group.num_columns))
    return sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == text_field)


def _check_swollen(n_bytes: int, most: int, file: Path) -> None:
    if n_bytes > most:
        raise InputError(
            f"{file} unpacks to {n_bytes >> 20} MiB at once, where its size allows {most >> 20} MiB: "
            "if it is sound, give it as .jsonl"
        )


def missing_extra(what: str) -> InputError:
    """The error for a library that is not installed, with the command that installs it."""
    return InputError(f"{what}, which is not installed: pip install '.[data]'")


def _zstandard(file: Path) -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise missing_extra(f"{file}: .zst files need zstandard") from error
    return zstandard
