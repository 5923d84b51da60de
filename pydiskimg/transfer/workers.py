# SPDX-License-Identifier: MIT
"""Threads that process items until all are done or one has failed."""

from __future__ import annotations

import errno
import os
import threading
from mmap import mmap

from pydiskimg.errors import storage_error
from pydiskimg.startup import TYPE_CHECKING, Generic, TypeVar
from pydiskimg.transfer.pieces import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydiskimg.extents import Extent
    from pydiskimg.transfer.meter import Meter
    from pydiskimg.transfer.pieces import PieceBatch


# Beyond this, threads only wait for each other and for the device, and memory grows.
MAX_WORKERS = 8


Item = TypeVar("Item")


def worker_count(workers: int | None, *, least: int = 2) -> int:
    """Return the number of threads to use: at most 8; None means one for each CPU, and at least least."""
    if workers is not None and workers < 0:
        raise ValueError(f"{workers} workers are not possible; expected 1 or more, or None")
    return min(MAX_WORKERS, workers or max(least, os.cpu_count() or 1))


SomePiece = TypeVar("SomePiece", bound="Extent | PieceBatch")


def work_on(
    pieces: Iterator[SomePiece], work: Callable[[SomePiece, memoryview], None], *, meter: Meter, workers: int
) -> None:
    """Call work(piece, buffer) for every piece, by workers threads; buffer is a thread's own, of CHUNK_SIZE bytes.

    Raises the first failure, after every thread has stopped.
    """

    def begin() -> Callable[[SomePiece], None]:
        buffer = page_aligned_buffer()

        def one(piece: SomePiece) -> None:
            work(piece, buffer)
            meter.piece_done(piece)

        return one

    Pool(pieces, begin).run(workers)


class Pool(Generic[Item]):
    """Threads that take items, one thread at a time, and process them until none is left or one has failed.

    begin is called on each thread, and returns the function that processes an item there.
    """

    def __init__(self, items: Iterator[Item], begin: Callable[[], Callable[[Item], None]]) -> None:
        self._items = items
        self._begin = begin
        self._taking = threading.Lock()
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []
        self._is_stopped = False
        self._threads: list[threading.Thread] = []
        self._working: set[int] = set()  # numbers of the threads that may still write
        self._all_done = threading.Event()

    def run(self, count: int) -> None:
        """Return when count threads have done all items; raise the first failure, after all of them have stopped."""
        try:
            self.start(count)
            self._all_done.wait()
        except BaseException:  # a signal in the caller's thread: the workers end after their item
            self.stop()
            try:  # noqa: SIM105 - contextlib is slow to import
                self.wait()
            except BaseException:  # noqa: BLE001, S110 - a further signal; the first is on its way to the caller
                pass
            raise
        self.wait()
        if self._failures:
            raise self._failures[0]

    def stop(self) -> None:
        """Let no thread take another item."""
        self._is_stopped = True

    def wait(self) -> None:
        """Wait for every thread, even after an error: none may write after the caller has closed the disk.

        The first signal that arrives meanwhile is raised afterwards. Joining the threads would not work: a join() that
        a signal interrupts considers the thread ended (seen with Python 3.11).
        """
        first: BaseException | None = None
        while self._working:
            try:
                self._all_done.wait()
            except BaseException as error:  # noqa: BLE001 - raised below
                first = first or error
        if first is not None:
            raise first
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def start(self, count: int) -> None:
        """Start count threads, or as many as the system allows: one is enough. Raises StorageError."""
        for number in range(count):
            thread = threading.Thread(target=self._worker, args=(number,), name=f"worker-{number}", daemon=True)
            try:
                self._begun(number)
                self._threads.append(thread)
                thread.start()
            except RuntimeError as error:
                self._threads.pop()
                self._ended(number)
                if not number:
                    cause = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                    raise storage_error(cause, "copying", "the system would not start a thread") from error
                return
            except BaseException:  # a signal; if the thread starts later, it finds nothing to do
                self.stop()
                if thread.ident is None:
                    self._ended(number)
                raise

    def _begun(self, number: int) -> None:
        with self._lock:
            self._working.add(number)
            self._all_done.clear()

    def _ended(self, number: int) -> None:
        """Note the end of a worker; one that was abandoned before its start may be noted twice."""
        with self._lock:
            self._working.discard(number)
            if not self._working:
                self._all_done.set()

    def _worker(self, number: int) -> None:
        try:
            work = self._begin()
            while (item := self._next()) is not None:
                work(item)
                del item  # which must not be kept while waiting for the next one
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            self._failures.append(error)
            self.stop()
        finally:
            self._ended(number)

    def _next(self) -> Item | None:
        with self._taking:
            return None if self._is_stopped else next(self._items, None)


def page_aligned_buffer() -> memoryview:
    """Return a buffer for one chunk, at a page boundary, as required for direct I/O."""
    try:
        return memoryview(mmap(-1, CHUNK_SIZE))
    except OSError as error:
        raise storage_error(error, "copying", f"there is no memory for a buffer of {CHUNK_SIZE} bytes") from error
