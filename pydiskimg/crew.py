# SPDX-License-Identifier: MIT
"""Threads that take piece after piece until all are done or one has failed."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from mmap import mmap

from pydiskimg.errors import storage_error
from pydiskimg.pieces import CHUNK_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydiskimg.extents import Extent
    from pydiskimg.protocols import Progress


class Meter:
    """Progress across phases; its caller holds a lock. total and lengths are bytes."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def advance(self, length: int) -> None:
        """Report length more bytes as done."""
        self._done += length
        if self._progress is not None:
            self._progress(self._done, self._total)


class Crew:
    """Workers that call work(piece, buffer) for every piece; buffer is the worker's own, of CHUNK_SIZE bytes."""

    def __init__(self, pieces: Iterator[Extent], work: Callable[[Extent, memoryview], None], meter: Meter) -> None:
        self._pieces = pieces
        self._work = work
        self._meter = meter
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []

    def run(self, count: int) -> None:
        """Return when all pieces are done; raise the first failure, after every thread has stopped."""
        threads = [threading.Thread(target=self._worker, name=f"copy-{i}", daemon=True) for i in range(count)]
        try:
            self._start(threads)
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        except BaseException as error:  # a signal in the caller's thread: the workers end with their piece
            self._fail(error)
            _join_whatever_comes(threads)
            raise
        if self._failures:
            raise self._failures[0]

    def _start(self, threads: list[threading.Thread]) -> None:
        """Start as many as the system allows: one is enough."""
        for number, thread in enumerate(threads):
            try:
                thread.start()
            except RuntimeError as error:
                if not number:
                    cause = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                    raise storage_error(cause, "copying", "no thread is to be had") from error
                return

    def _worker(self) -> None:
        try:
            buffer = page_aligned_buffer()
            while (piece := self._next()) is not None:
                self._work(piece, buffer)
                with self._lock:
                    self._meter.advance(piece.length)
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            self._fail(error)

    def _next(self) -> Extent | None:
        with self._lock:
            return None if self._failures else next(self._pieces, None)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failures.append(error)


def _join_whatever_comes(threads: list[threading.Thread]) -> None:
    """Wait for every thread that was started: none may write once the caller has closed the disk.

    A further signal is dropped; the first is on its way to the caller.
    """
    for thread in threads:
        while thread.ident is not None and thread.is_alive():
            with suppress(BaseException):
                thread.join()


def page_aligned_buffer() -> memoryview:
    """Return a buffer for one chunk, at a page boundary, as direct I/O wants it."""
    try:
        return memoryview(mmap(-1, CHUNK_SIZE))
    except OSError as error:
        raise storage_error(error, "copying", f"no buffer of {CHUNK_SIZE} bytes is to be had") from error
