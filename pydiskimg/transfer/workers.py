# SPDX-License-Identifier: MIT
"""Threads that take piece after piece until all are done or one has failed."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from mmap import mmap

from pydiskimg.errors import storage_error
from pydiskimg.transfer.pieces import CHUNK_SIZE

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
        self._threads: list[threading.Thread] = []
        self._working: set[int] = set()  # numbers of those that may still write
        self._all_done = threading.Event()

    def run(self, count: int) -> None:
        """Return when all pieces are done; raise the first failure, after every worker has stopped."""
        try:
            self._start(count)
            self._all_done.wait()
            for thread in self._threads:
                thread.join()
        except BaseException as error:  # a signal in the caller's thread: the workers end with their piece
            self._fail(error)
            self._wait_whatever_comes()
            raise
        if self._failures:
            raise self._failures[0]

    def _start(self, count: int) -> None:
        """Start as many as the system allows: one is enough."""
        for number in range(count):
            thread = threading.Thread(target=self._worker, args=(number,), name=f"copy-{number}", daemon=True)
            try:
                self._begun(number)
                self._threads.append(thread)
                thread.start()
            except RuntimeError as error:
                self._threads.pop()
                self._ended(number)
                if not number:
                    cause = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                    raise storage_error(cause, "copying", "no thread is to be had") from error
                return
            except BaseException as error:  # a signal; should the thread begin later, it finds nothing to do
                self._fail(error)
                if thread.ident is None:
                    self._ended(number)
                raise

    def _wait_whatever_comes(self) -> None:
        """Wait for every worker: none may write once the caller has closed the disk.

        A further signal is dropped; the first is on its way to the caller. To join the threads would not do: a join()
        that a signal interrupts takes the thread for ended (seen with Python 3.11).
        """
        while self._working:
            with suppress(BaseException):
                self._all_done.wait()

    def _begun(self, number: int) -> None:
        with self._lock:
            self._working.add(number)
            self._all_done.clear()

    def _ended(self, number: int) -> None:
        """Note the end of a worker; one that was given up before it began may be noted twice."""
        with self._lock:
            self._working.discard(number)
            if not self._working:
                self._all_done.set()

    def _worker(self, number: int) -> None:
        try:
            buffer = page_aligned_buffer()
            while (piece := self._next()) is not None:
                self._work(piece, buffer)
                with self._lock:
                    self._meter.advance(piece.length)
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            self._fail(error)
        finally:
            self._ended(number)

    def _next(self) -> Extent | None:
        with self._lock:
            return None if self._failures else next(self._pieces, None)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failures.append(error)


def page_aligned_buffer() -> memoryview:
    """Return a buffer for one chunk, at a page boundary, as direct I/O wants it."""
    try:
        return memoryview(mmap(-1, CHUNK_SIZE))
    except OSError as error:
        raise storage_error(error, "copying", f"no buffer of {CHUNK_SIZE} bytes is to be had") from error
