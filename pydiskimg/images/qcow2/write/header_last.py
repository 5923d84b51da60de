# SPDX-License-Identifier: MIT
"""A new image whose header is held back until everything else is written."""

from __future__ import annotations

import threading

from pydiskimg.protocols import Buffer, Store, WritableBuffer
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydiskimg.protocols import FileRange


class UnpublishedStore(Store):
    """A Store that keeps the first head_size bytes in memory and passes the rest on to store, which it does not own.

    An interrupted image has no header, so only publish() must be durable: flush() does nothing, and writes are not
    ordered. The old head of the store is wiped, durably, before the first write.
    """

    name: str

    def __init__(self, store: Store, head_size: int) -> None:
        self.name = store.name
        self._store = store
        self.grows = store.grows
        self._head = bytearray(head_size)
        self._lock = threading.Lock()
        self._published = False
        if store.size:
            store.write(0, bytes(min(head_size, store.size)))
            store.flush()

    @property
    def size(self) -> int:
        return max(self._store.size, len(self._head))

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        split = self._split(offset, len(buffer))
        view = memoryview(buffer)
        view[:split] = self._head[offset : offset + split]
        if split < len(view):
            self._store.read_into(offset + split, view[split:])

    def write(self, offset: int, data: Buffer) -> None:
        split = self._split(offset, len(data))
        view = memoryview(data)
        if split:
            with self._lock:
                self._head[offset : offset + split] = view[:split]
        if split < len(view):
            self._store.write(offset + split, view[split:])

    def share(self, offset: int, ranges: Sequence[FileRange]) -> bool:
        return not self._split(offset, 1) and self._store.share(offset, ranges)

    def extend(self, size: int) -> None:
        self._store.extend(size)

    def flush(self) -> None:
        if self._published:
            self._store.flush()

    def drop_cache(self) -> None:
        """Make the next reads come from the device if the system can do that."""
        self._store.flush()
        self._store.drop_cache()

    def publish(self) -> None:
        """Make everything durable, then the head. From then on it is a Store like any other."""
        self._store.flush()
        self._store.write(0, self._head)
        self._store.flush()
        self._published = True

    def _split(self, offset: int, length: int) -> int:
        """The number of the bytes from offset on that are in the head."""
        if self._published:
            return 0
        return max(0, min(length, len(self._head) - offset))
