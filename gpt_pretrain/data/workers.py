"""Batches of text to tokens, in this process or in several. Results come in the order of the batches."""

import multiprocessing
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from types import FrameType, ModuleType
from typing import Any

import numpy as np

from gpt_pretrain.errors import InfrastructureError, UserFacingError
from gpt_pretrain.tokenizer import Tokenizer, without_surrogates

# Which stream a segment belongs to, whether it begins a document, and its text.
Segment = tuple[int, bool, str]
IN_FLIGHT = 3  # batches a worker: one that it works on, one that waits, one that is on its way


@dataclass(slots=True)
class Encoded:
    """What a batch adds to one stream: an end-of-text token stands before each place in `documents`."""

    tokens: np.ndarray
    documents: np.ndarray
    characters: int
    n_bytes: int  # of UTF-8
    has_text: bool  # more than white space


def encode_batch(
    tokenizer: Tokenizer, batch: list[Segment], *, allow_special: bool, dtype: str
) -> dict[int, Encoded]:
    result = {}
    for stream in sorted({stream for stream, _, _ in batch}):
        parts, documents, n_tokens, characters, n_bytes, has_text = [], [], 0, 0, 0, False
        for _, begins, text in (segment for segment in batch if segment[0] == stream):
            if begins:
                parts.append(np.array([tokenizer.end_of_text_id], dtype))
                n_tokens += 1
                documents.append(n_tokens)
            ids = tokenizer.encode_segment(text, allow_special=allow_special)
            parts.append(ids.astype(dtype))
            n_tokens += len(ids)
            characters += len(text)
            has_text = has_text or not text.isspace()
            n_bytes += len(text) if text.isascii() else len(without_surrogates(text).encode())
        tokens = np.concatenate(parts)
        result[stream] = Encoded(tokens, np.array(documents, np.int64), characters, n_bytes, has_text)
    return result


def encode_batches(
    batches: Iterable[list[Segment]], tokenizer: Tokenizer, n_workers: int, **options: Any
) -> Iterator[dict[int, Encoded]]:
    """`encode_batch` of each batch, k by worker k modulo their number: batches are of one size."""
    if n_workers == 0:
        for batch in batches:
            yield encode_batch(tokenizer, batch, **options)
        return
    with ExitStack() as stack:
        waiting: deque[Connection] = deque()
        try:
            workers = [_start(stack) for _ in range(n_workers)]
            for worker in workers:
                worker.send((tokenizer, options))  # not when it starts: they would start one by one
            for number, batch in enumerate(batches):
                if len(waiting) >= IN_FLIGHT * n_workers:
                    yield _receive(waiting.popleft())
                worker = workers[number % n_workers]
                worker.send(batch)
                waiting.append(worker)
            while waiting:
                yield _receive(waiting.popleft())
        except (EOFError, OSError) as error:
            raise InfrastructureError(
                "a tokenizing process died or did not start, for want of memory perhaps: "
                "set a smaller data.prepare_workers"
            ) from error


def _start(stack: ExitStack) -> Connection:
    """A fresh process, which inherits nothing: it ends when its pipe closes, however this process ends."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    with _signals_held(), _main_hidden():
        process.start()
        theirs.close()
        stack.callback(process.join)
        stack.callback(ours.close)
    return ours


@contextmanager
def _main_hidden() -> Iterator[None]:
    """What is started inside does not run this process's program again, as `spawn` lets it: a script without
    `if __name__ == "__main__"` would wait there for the lock that is held here.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _signals_held() -> Iterator[None]:
    """A signal is answered after the body: amid it, it would leave a process half started, which complains.

    What is started inside never hears Ctrl-C, by a mask that it inherits (Windows has nothing of the kind).
    Here the mask holds nothing back: another thread takes the signal, and Python answers it in the main one.
    """
    came: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        found = {int(number): signal.getsignal(number) for number in signal.valid_signals()}
        handlers = {number: handler for number, handler in found.items() if callable(handler)}
    try:
        for number in handlers:
            signal.signal(number, lambda *signal_and_frame: came.append(signal_and_frame))
        with _interrupts_masked():
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in came:
            handlers[number](number, frame)


@contextmanager
def _interrupts_masked() -> Iterator[None]:
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # started with the process, it would let Ctrl-C through again
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    else:
        yield


def _receive(worker: Connection) -> dict[int, Encoded]:
    result = worker.recv()
    if isinstance(result, Exception):
        raise result
    return result


def _work(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which Windows hands to all processes of a terminal
    batches: queue.Queue[Any] = queue.Queue()
    # A thread takes what the parent sends, so that neither waits for the other while both send.
    threading.Thread(target=_feed, args=(connection, batches), daemon=True).start()
    if (first := batches.get()) is None:
        return
    tokenizer, options = first
    try:
        while (batch := batches.get()) is not None:
            try:
                result: Any = encode_batch(tokenizer, batch, **options)
            except UserFacingError as error:
                result = error
            connection.send(result)
    except OSError:
        pass  # the parent is gone


def _feed(connection: Connection, batches: "queue.Queue[Any]") -> None:
    try:
        while True:
            batches.put(connection.recv())
    except (EOFError, OSError):
        batches.put(None)
