# SPDX-License-Identifier: MIT
"""A cache that drops the least recently used values; bounded in bytes and safe from several threads."""

from __future__ import annotations

from _thread import allocate_lock

from pydiskimg.startup import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections import OrderedDict
else:  # collections/__init__.py only re-exports it, and takes 2 ms
    from _collections import OrderedDict

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Values under integer keys; the sum of their sizes (bytes) is at most capacity, but the newest always stays.

    The lock is held for bookkeeping only: a thread that misses loads the value without it and then adds it. Two threads
    may therefore both load the same value, which only costs time.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._used = 0
        self._lock = allocate_lock()
        self._items: OrderedDict[int, tuple[Value, int]] = OrderedDict()

    def get(self, key: int) -> Value | None:
        """Return the value, which becomes the most recently used one, or None."""
        with self._lock:
            item = self._items.get(key)
            if item is None:
                return None
            self._items.move_to_end(key)
            return item[0]

    def put(self, key: int, value: Value, size: int) -> None:
        """Add value, and drop the least recently used ones until size fits."""
        with self._lock:
            _, replaced = self._items.pop(key, (None, 0))
            self._used += size - replaced
            self._items[key] = value, size
            while self._used > self._capacity and len(self._items) > 1:
                _, (_, dropped) = self._items.popitem(last=False)
                self._used -= dropped
