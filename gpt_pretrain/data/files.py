"""Documents in files: .txt .md .jsonl .jsonl.gz .jsonl.zst .parquet. Text comes in pieces, so a file may be
larger than memory; a document of .jsonl or .parquet is held whole.
"""

import codecs
import glob
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from gpt_pretrain.errors import InputError

Document = Iterable[str]  # its text in pieces of any length
OnBytes = Callable[[int], None]  # told how many bytes of the files have been read, for the progress bar

SUFFIXES = (".txt", ".md", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
CHUNK = 1 << 18  # bytes; a fifth faster than 1 MiB, which no longer fits a core's cache


def find_files(path: str, pattern: str | None, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """The files that `path` names, in the order of their names. Raises InputError where there is none."""
    folder = Path(path)
    if folder.is_dir():
        found = sorted(file for file in folder.rglob(pattern or "*") if file.is_file())
        if pattern is None:
            found = [file for file in found if file.name.endswith(suffixes)]
        if not found:
            wanted = pattern or " ".join(suffixes)
            raise InputError(f"data.path={path} holds no file named {wanted}: set data.pattern")
        return found
    names = [path] if folder.is_file() else glob.glob(path, recursive=True)
    found = sorted(file for name in names if (file := Path(name)).is_file())
    if not found:
        raise InputError(f"data.path={path}: no such file or folder, and no file matches it as a pattern")
    return found


def documents_in(file: Path, text_field: str, on_bytes: OnBytes) -> Iterator[Document]:
    """The documents of one file. A suffix of none of the kinds means plain text.

    Raises InputError that names the file, and the line where there is one.
    """
    try:
        if file.name.endswith(".parquet"):
            yield from _rows(file, text_field, on_bytes)
        elif file.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")):
            yield from _lines(file, text_field, on_bytes)
        elif file.suffix == ".bin":
            raise InputError(f"{file} holds tokens, not text: choose data=token_files")
        else:
            with _Counted(file, on_bytes) as stream:
                yield text_pieces(stream, str(file))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error


def text_pieces(stream: Any, name: str) -> Iterator[str]:
    """UTF-8 text of a binary stream; line ends become \\n as Python's own open() has it, a leading byte order
    mark goes. Raises InputError that names the first bad byte.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    n_read = 0
    while True:
        chunk = stream.read(CHUNK)
        n_read += len(chunk)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            place = n_read - len(error.object) + error.start
            raise InputError(
                f"{name} is not UTF-8: byte {place} is {error.object[error.start]:#04x}\n"
                f"convert it first, as in: iconv -f latin1 -t utf-8 {Path(name).name} > utf8.txt"
            ) from error
        if text:
            yield text
        if not chunk:
            return


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
        lines = enumerate(stream, 1)
        while True:
            try:
                number, line = next(lines)
            except StopIteration:
                return
            except (EOFError, gzip.BadGzipFile, _zstd_error()) as error:
                raise InputError(f"{file} is damaged or cut off: {error}") from error
            if line.strip():
                text = _field(line, text_field, f"{file}, line {number}")
                if text:
                    yield [text]


def _unpacked(file: Path, packed: Any) -> IO[bytes]:
    if file.suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=packed), CHUNK)
    if file.suffix == ".zst":
        reader = _zstandard(file).ZstdDecompressor().stream_reader(packed, read_across_frames=True)
        return io.BufferedReader(reader, CHUNK)
    return packed


def _field(line: bytes, text_field: str, place: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place} is not JSON: {error}") from error
    if not isinstance(row, dict) or text_field not in row:
        fields = ", ".join(row) if isinstance(row, dict) else f"a {type(row).__name__}, not an object"
        raise InputError(f"data.text_field={text_field} is not in {place}: it holds {fields}")
    text = row[text_field]
    if text is not None and not isinstance(text, str):
        raise InputError(
            f"data.text_field={text_field} of {place} is of type {type(text).__name__}, not text"
        )
    return text or ""


def _rows(file: Path, text_field: str, on_bytes: OnBytes) -> Iterator[Document]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra(f"{file}: .parquet files need pyarrow") from error
    try:
        with pq.ParquetFile(file) as table:
            if text_field not in table.schema_arrow.names:
                names = ", ".join(table.schema_arrow.names)
                raise InputError(f"data.text_field={text_field} is not in {file}: it holds {names}")
            n_rows, share = max(1, table.metadata.num_rows), file.stat().st_size
            for batch in table.iter_batches(256, columns=[text_field]):
                for text in batch.column(0).to_pylist():
                    if text is not None and not isinstance(text, str):
                        kind = type(text).__name__
                        raise InputError(
                            f"data.text_field={text_field} of {file} is of type {kind}, not text"
                        )
                    if text:
                        yield [text]
                on_bytes(share * len(batch) // n_rows)
    except pa.ArrowException as error:
        raise InputError(f"{file} is no parquet file or is damaged: {error}") from error


def missing_extra(what: str) -> InputError:
    return InputError(f"{what}, which is not installed: pip install 'gpt_pretrain[data]'")


def _zstandard(file: Path) -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise missing_extra(f"{file}: .zst files need zstandard") from error
    return zstandard


def _zstd_error() -> type[Exception]:
    try:
        import zstandard
    except ImportError:
        return EOFError
    return zstandard.ZstdError
