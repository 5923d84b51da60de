# SPDX-License-Identifier: MIT
"""A disk that is overwritten by something that may break off: its beginning comes when the rest is there.

What DeferredHead does for a disk that belongs to one image as a whole, this does for an image at the beginning of
a disk, whose end may hold other things, and whose length is not known before it has come.
"""

from __future__ import annotations

from pydiskimg.deferred import HEAD_SIZE
from pydiskimg.protocols import Buffer, Disk


class HeadLast:
    """Writes to a Disk, but keeps what belongs to its first MiB in memory until commit(). Safe from several threads.

    Making it zeroes that MiB, durably. The disk stays the caller's.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._head = bytearray(min(HEAD_SIZE, disk.size))
        self._end = 0  # of what was written to the head
        disk.zero(0, len(self._head))
        disk.flush()

    def write(self, offset: int, data: Buffer) -> None:
        """Write data at offset, as Disk.write() does."""
        kept = self._kept(offset, len(data))
        with memoryview(data) as view:
            self._head[offset : offset + kept] = view[:kept]
            if kept < len(view):
                self._disk.write(offset + kept, view[kept:])

    def zero(self, offset: int, length: int) -> None:
        """Make [offset, offset + length) zero, as Disk.zero() does."""
        kept = self._kept(offset, length)
        self._head[offset : offset + kept] = bytes(kept)
        if kept < length:
            self._disk.zero(offset + kept, length - kept)

    def commit(self) -> None:
        """Flush what was written, then write the beginning as far as it was given, and flush that."""
        self._disk.flush()
        if self._end:
            with memoryview(self._head) as view:
                self._disk.write(0, view[: self._end])
        self._disk.flush()

    def _kept(self, offset: int, length: int) -> int:
        """Return how many of length bytes at offset belong to the head."""
        kept = max(0, min(length, len(self._head) - offset))
        self._end = max(self._end, offset + kept if kept else 0)
        return kept
