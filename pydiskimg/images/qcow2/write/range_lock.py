# SPDX-License-Identifier: MIT
"""Locks for ranges of the virtual disk, so that threads do not change the same bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class RangeLock:
    """A range may have several readers, or one writer. Ranges are [start, end) in bytes.

    Each thread holds one range at a time, so there are at most as many ranges as threads.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._readers: list[tuple[int, int]] = []
        self._writers: list[tuple[int, int]] = []

    @contextmanager
    def reading(self, start: int, end: int) -> Iterator[None]:
        """Wait until no thread writes in the range, and keep writers out."""
        yield from self._hold(self._readers, (start, end), against=(self._writers,))

    @contextmanager
    def writing(self, start: int, end: int) -> Iterator[None]:
        """Wait until no other thread is in the range, and keep all others out."""
        yield from self._hold(self._writers, (start, end), against=(self._readers, self._writers))

    def _hold(
        self, mine: list[tuple[int, int]], held: tuple[int, int], *, against: tuple[list[tuple[int, int]], ...]
    ) -> Iterator[None]:
        start, end = held
        with self._condition:
            while any(first < end and start < last for others in against for first, last in others):
                self._condition.wait()
            mine.append(held)
        try:
            yield
        finally:
            with self._condition:
                mine.remove(held)
                self._condition.notify_all()
