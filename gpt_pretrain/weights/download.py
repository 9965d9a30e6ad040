"""One file over HTTP: resumed where it was cut, checked against what its server declares, once per node."""

import hashlib
import http.client
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from gpt_pretrain.errors import ArtifactError, InfrastructureError
from gpt_pretrain.terminal.silence import Silence
from gpt_pretrain.terminal.text import show

TIMEOUT = 30  # seconds without a byte
TRIES = 5  # of one address, each going on where the last was cut
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of a file before it is fetched. None: not known."""

    size: int | None = None
    sha256: str | None = None
    at_most: int | None = None  # bytes, where the size is not known


class UnreachableError(InfrastructureError):
    """No address serves the file."""


class _CannotWriteError(Exception):
    """The disk's fault, which no other address and no other try makes good."""


def download(
    urls: list[str],
    target: Path,
    expected: Expected,
    *,
    again_if_damaged: bool = False,
    timeout: float = TIMEOUT,
    setting: str = "GPT_PRETRAIN_CACHE",
) -> None:
    """Fetch `target` from the first of `urls` that serves it; processes that want the same file wait.

    A file that is there is taken as it is; `again_if_damaged` compares its SHA-256 first. `setting` is what
    the user sets for another folder. Raises UnreachableError where no address serves the file, another
    InfrastructureError where it cannot be written, ArtifactError where what comes is not what was declared.
    """
    wanted = expected.sha256 if again_if_damaged else None
    if _is_there(target, wanted):
        return
    try:
        with _locked(target):
            if not _is_there(target, wanted):  # another process may have fetched it while we waited
                _download_from_any(urls, target, expected, timeout)
    except _CannotWriteError as error:
        raise InfrastructureError(
            f"{target.parent} cannot be written ({error}): set {setting} to a folder that can"
        ) from error


def _is_there(target: Path, sha256: str | None) -> bool:
    return target.is_file() and (sha256 is None or _sha256(target) == sha256)


def _download_from_any(urls: list[str], target: Path, expected: Expected, timeout: float) -> None:
    refusals = []
    for url in urls:
        try:
            _download(url, target, expected, timeout)
            return
        except UnreachableError as error:
            refusals.append(f"{url}: {error}")
    raise UnreachableError("; ".join(refusals))


def _download(url: str, target: Path, expected: Expected, timeout: float) -> None:
    partial = target.with_name(f"{target.name}.partial")
    resumed = partial.is_file() and partial.stat().st_size > 0
    try:
        _check(url, partial, _fetch(url, partial, expected, timeout))
    except ArtifactError:
        partial.unlink(missing_ok=True)
        if not resumed:
            raise
        _check(url, partial, _fetch(url, partial, expected, timeout))  # what was kept was of another version
    with _disk():
        partial.replace(target)


def _fetch(url: str, partial: Path, expected: Expected, timeout: float) -> Expected:
    """Bring `partial` to its full size; returns what the server declares, what was known going before."""
    failure = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(min(8, 0.1 * 2**attempt))
        begin = partial.stat().st_size if partial.is_file() else 0
        try:
            with _open(url, begin, timeout) as response:
                declared = _declared(response, expected)
                if begin and response.status != 206:
                    begin = 0  # the server sends the whole
                _receive(
                    response, partial, begin, expected.at_most if declared.size is None else declared.size
                )
        except urllib.error.HTTPError as error:
            if error.code == 416 and begin:  # nothing beyond what we have, which is then not what it serves
                partial.unlink()
                continue
            if error.code < 500:
                raise UnreachableError(f"{error.code} {error.reason}") from error
            failure = f"{error.code} {error.reason}"
            continue
        except (OSError, http.client.HTTPException) as error:
            failure = str(getattr(error, "reason", "") or error or type(error).__name__)
            if attempt == 0 and begin == 0 and not partial.is_file():
                raise UnreachableError(failure) from error  # nobody there: the next address
            continue
        if declared.size is None or partial.stat().st_size >= declared.size:
            return declared
        failure = f"the connection was cut at {partial.stat().st_size:,} of {declared.size:,} bytes"
    raise UnreachableError(f"{failure}; what came is kept, so another try goes on from there")


def _receive(response: Any, partial: Path, begin: int, size: int | None) -> None:
    with _disk():
        stream = partial.open("ab" if begin else "wb", buffering=0)
    with stream, _bar(partial.name, begin, size) as advance:
        while chunk := response.read(CHUNK):
            _write(stream, chunk)
            advance(len(chunk))
            if size is not None and stream.tell() > size:
                raise ArtifactError(f"{response.url} sends more than the {size:,} bytes that were expected")


def _write(stream: FileIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    with _disk():
        while rest:
            rest = rest[stream.write(rest) :]


@contextmanager
def _disk() -> Iterator[None]:
    """Tells the disk's errors from the network's, which are OSErrors too."""
    try:
        yield
    except OSError as error:
        raise _CannotWriteError(error.strerror or str(error)) from error


def _check(url: str, partial: Path, declared: Expected) -> None:
    size = partial.stat().st_size
    if declared.size is not None and size != declared.size:
        raise ArtifactError(f"{url} has {size:,} bytes, not {declared.size:,}")
    if declared.sha256 is not None and (digest := _sha256(partial)) != declared.sha256:
        raise ArtifactError(f"{url} has SHA-256 {digest}, not {declared.sha256}: nothing of it was kept")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """The hub declares a file's size and SHA-256 in the answer that sends us on to its store."""

    def __init__(self) -> None:
        self.declared: dict[str, str] = {}

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        self.declared |= {key.lower(): value for key, value in headers.items()}
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _open(url: str, begin: int, timeout: float) -> Any:
    redirects = _Redirects()
    request = urllib.request.Request(url, headers={"User-Agent": "gpt_pretrain"})
    if begin:
        request.add_header("Range", f"bytes={begin}-")
    response = urllib.request.build_opener(redirects).open(request, timeout=timeout)
    response.declared = redirects.declared | {key.lower(): value for key, value in response.headers.items()}
    return response


def _declared(response: Any, expected: Expected) -> Expected:
    """Size and SHA-256 as known before, else as the server says. Raises ArtifactError where sizes differ."""
    headers, size = response.declared, None
    if response.status == 206:
        if match := re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("content-range", "")):
            size = int(match[1])
    elif "content-length" in headers:
        size = int(headers["content-length"])
    if linked := headers.get("x-linked-size"):
        size = int(linked)
    if expected.size is not None and size is not None and size != expected.size:
        raise ArtifactError(f"{response.url} has {size:,} bytes, not {expected.size:,}")
    if expected.at_most is not None and size is not None and size > expected.at_most:
        raise ArtifactError(f"{response.url} has {size:,} bytes, more than {expected.at_most:,}")
    etag = headers.get("x-linked-etag", "").strip('W/"')
    sha256 = etag if re.fullmatch("[0-9a-f]{64}", etag) else None
    return Expected(size=expected.size or size, sha256=expected.sha256 or sha256)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Alone among this node's processes; the kernel frees the lock when its holder ends, however that is."""
    lock = FileLock(target.with_name(f"{target.name}.lock"))
    with _disk():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            show(f"another process downloads {target}: waiting for it", file=sys.stderr)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _bar(name: str, begin: int, size: int | None) -> Iterator[Any]:
    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    console = Console(stderr=True)  # beside the text that a program writes, not in it
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(name.removesuffix(".partial"), total=size, completed=begin)
        silence, shown = Silence(), progress.tasks[0]

        def advance(n_bytes: int) -> None:
            progress.advance(task, n_bytes)
            of = f" of {size / 1e6:,.0f}" if size else ""
            silence.end(lambda: f"downloading {shown.description}: {shown.completed / 1e6:,.0f}{of} MB")

        yield advance
