# SPDX-License-Identifier: MIT
"""Work on several threads whose results come in order, and the buffers that it is done in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from mmap import mmap
from queue import SimpleQueue
from threading import Lock
from typing import Generic, TypeVar

from pydiskimg.errors import storage_error
from pydiskimg.transfer.workers import Pool

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items taken beyond those being worked on, so that nobody waits for the slowest.
_AHEAD = 2


def items_at_once(workers: int) -> int:
    """Return how many items ordered() has taken and not yet given at most, the one its caller holds included."""
    return workers + _AHEAD + 1


class _Task(Generic[Item, Result]):
    """One item, and what its work gave."""

    def __init__(self, item: Item, work: Callable[[Item], Result]) -> None:
        self._item = item
        self._work = work
        self._result: Result
        self._error: BaseException | None = None
        self._running = Lock()
        self._running.acquire()

    def run(self) -> None:
        try:
            self._result = self._work(self._item)
        except BaseException as error:  # noqa: BLE001 - raised where the results are taken
            self._error = error
        self._running.release()

    def result(self) -> Result:
        """Wait for the result; raises the work's error."""
        self._running.acquire()
        if self._error is not None:
            raise self._error
        return self._result


def ordered(items: Iterable[Item], work: Callable[[Item], Result], *, workers: int) -> Generator[Result, None, None]:
    """Yield work(item) of every item, in the items' order; work runs on the threads, items on the caller's.

    Raises the first error, in the items' order. When the generator is closed or fails, no work runs any more.
    """
    tasks: SimpleQueue[_Task[Item, Result] | None] = SimpleQueue()
    pending: deque[_Task[Item, Result]] = deque()
    pool = Pool(iter(tasks.get, None), lambda: _Task.run)
    try:
        pool.start(workers)
        for item in items:
            task = _Task(item, work)
            pending.append(task)
            tasks.put(task)
            if len(pending) >= workers + _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.stop()
        tasks.put(None)
        pool.wait()


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
