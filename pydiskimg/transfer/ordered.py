# SPDX-License-Identifier: MIT
"""Work on several threads whose results come in order, and the buffers that it is done in."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from mmap import mmap
from queue import SimpleQueue
from typing import TypeVar

from pydiskimg.errors import storage_error

Item = TypeVar("Item")
Result = TypeVar("Result")

# Beyond this, threads wait for each other rather than work, and memory grows.
MAX_WORKERS = 8
# Items taken beyond those being worked on, so that nobody waits for the slowest.
_AHEAD = 2


def worker_count(workers: int | None) -> int:
    """Return the number of threads to use: at most 8, by the number of CPUs when workers is None."""
    return min(MAX_WORKERS, workers or max(2, os.cpu_count() or 1))


def items_at_once(workers: int) -> int:
    """Return how many items ordered() has taken and not yet given at most, the one its caller holds included."""
    return workers + _AHEAD + 1


def ordered(items: Iterable[Item], work: Callable[[Item], Result], *, workers: int) -> Generator[Result, None, None]:
    """Yield work(item) of every item, in the items' order; work runs on the threads, items on the caller's.

    Raises the first error, in the items' order. When the generator is closed or fails, no work runs any more.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="stream")
    try:
        for item in items:
            pending.append(_submit(pool, work, item))
            if len(pending) >= workers + _AHEAD:
                yield _first(pending)
        while pending:
            yield _first(pending)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        _wait_whatever_comes(pending)
        pool.shutdown()


def _first(pending: deque[Future[Result]]) -> Result:
    """Take the first result; it stays pending until it is there."""
    result = pending[0].result()
    pending.popleft()
    return result


def _submit(pool: ThreadPoolExecutor, work: Callable[[Item], Result], item: Item) -> Future[Result]:
    try:
        return pool.submit(work, item)
    except RuntimeError as error:  # the system gives no thread
        cause = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        raise storage_error(cause, "copying", "no thread is to be had") from error


def _wait_whatever_comes(pending: Iterable[Future[Result]]) -> None:
    """Wait for the work that has begun: none may write once the caller has closed what it writes to.

    Of the signals that come meanwhile the first is raised afterwards. To join the threads would not do: a join() that
    a signal interrupts takes the thread for ended (seen with Python 3.11).
    """
    first: BaseException | None = None
    while running := [future for future in pending if not future.done()]:
        try:
            wait(running)
        except BaseException as error:  # noqa: BLE001 - raised below
            first = first or error
    if first is not None:
        raise first


class Buffers:
    """count buffers of size bytes, at page boundaries as direct I/O wants them; taken and given back by any thread."""

    def __init__(self, count: int, size: int) -> None:
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        try:
            for _ in range(count):
                self._free.put(memoryview(mmap(-1, size)))
        except OSError as error:
            raise storage_error(error, "streaming", f"no buffers of {size} bytes are to be had") from error

    def take(self) -> memoryview:
        """Return a free buffer, whatever it holds; waits for one."""
        return self._free.get()

    def give(self, buffer: memoryview) -> None:
        """Return a buffer that take() gave."""
        self._free.put(buffer)
