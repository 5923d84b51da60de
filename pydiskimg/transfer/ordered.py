# SPDX-License-Identifier: MIT
"""Work on several threads whose results are returned in order, and the buffers for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from mmap import mmap
from queue import SimpleQueue
from typing import Any, TypeVar

from pydiskimg.errors import storage_error
from pydiskimg.transfer.workers import Pool

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items taken in addition to those being processed, so that no thread waits for the slowest.
_AHEAD = 2


def items_at_once(workers: int) -> int:
    """Return the largest number of items that ordered() has taken and not returned, with its caller's current one."""
    return workers + _AHEAD + 1


def ordered(items: Iterable[Item], work: Callable[[Item], Result], *, workers: int) -> Generator[Result, None, None]:
    """Yield work(item) of every item, in the items' order; work runs on the threads, items on the caller's.

    Raises the first error, in the items' order. After the generator is closed or fails, no work is running.
    """
    # Each item is passed with the queue for its result.
    tasks: SimpleQueue[tuple[Item, SimpleQueue[Any]] | None] = SimpleQueue()
    pending: deque[SimpleQueue[Any]] = deque()

    def run(task: tuple[Item, SimpleQueue[Any]]) -> None:
        try:
            task[1].put((work(task[0]), None))
        except BaseException as error:  # noqa: BLE001 - raised where the results are taken
            task[1].put((None, error))

    pool = Pool(iter(tasks.get, None), lambda: run)
    try:
        pool.start(workers)
        for item in items:
            pending.append(SimpleQueue())
            tasks.put((item, pending[-1]))
            if len(pending) >= workers + _AHEAD:
                yield _result(pending.popleft())
        while pending:
            yield _result(pending.popleft())
    finally:
        pool.stop()
        tasks.put(None)
        pool.wait()


def _result(queue: SimpleQueue[Any]) -> Any:
    result, error = queue.get()
    if error is not None:
        raise error
    return result


class Buffers:
    """count buffers of size bytes, at page boundaries as direct I/O requires; taken and returned by any thread."""

    def __init__(self, count: int, size: int) -> None:
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        try:
            for _ in range(count):
                self._free.put(memoryview(mmap(-1, size)))
        except OSError as error:
            raise storage_error(error, "streaming", f"the system has no memory for buffers of {size} bytes") from error

    def take(self) -> memoryview:
        """Return a free buffer with arbitrary contents; waits for one."""
        return self._free.get()

    def give(self, buffer: memoryview) -> None:
        """Return a buffer from take()."""
        self._free.put(buffer)
