# SPDX-License-Identifier: MIT
"""The dirty bitmaps of an image that is being written: they record the writes to its disk.

    in the file   | not in use |  in use, may miss changes  | not in use |
                  open         first write                  flush()      first write after it ...

If the program ends in between, they stay in use, as with QEMU: they are then known to be incomplete.
"""

from __future__ import annotations

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.bitmap_set import BitmapSet
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.write.head import replace_head
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.write.refcounts import Refcounts
    from pydiskimg.protocols import Store


class RecordedBitmaps(BitmapSet):
    """The bitmaps of the image in store; its caller holds the lock. Errors are those of BitmapSet and Refcounts."""

    def __init__(self, store: Store, header: Header, refcounts: Refcounts) -> None:
        super().__init__(store, header)
        self._store = store
        self._refcounts = refcounts
        self._is_begun = self._must_write = False

    def begin(self, size: int | None = None) -> None:
        """Before the first change of the disk: mark the bitmaps in the file as possibly incomplete; durable.

        size is the disk's future size; raises as check_size().
        """
        if size is not None:
            self.check_size(size)
        if not self._is_begun:
            self.mark(self._store, in_use=True)
            self._store.flush()
            self._is_begun = True

    def record(self, start: int, end: int) -> None:
        """Before [start, end) of the disk is written: set its bits in all enabled bitmaps."""
        self.begin()
        for contents in self.recorded:
            contents.set_range(start, end)

    def add(self, name: bytes, granularity: int | None = None, *, is_enabled: bool = True) -> None:
        super().add(name, granularity, is_enabled=is_enabled)
        self._must_write = True

    def enable(self, name: bytes, *, is_enabled: bool = True) -> None:
        super().enable(name, is_enabled=is_enabled)
        self._must_write = True

    def save(self) -> bool:
        """Make the changes part of the image, durable; the disk already is. True if clusters were released."""
        if not self._is_begun and not self._must_write:
            return False
        if not self.is_changed and not self._must_write:
            self.mark(self._store, in_use=False)
            self._store.flush()
            self._is_begun = False
            return False
        left: list[tuple[int, int]] = []
        extensions = self.write_new(self._store, self._take, lambda first, count: left.append((first, count)))
        self._refcounts.write()
        self._store.flush()
        autoclear = read_header(self._store).autoclear_features & layout.AUTOCLEAR_DATA_FILE_RAW
        autoclear |= layout.AUTOCLEAR_BITMAPS
        replace_head(self._store, self._header, extensions, None, autoclear_features=autoclear)
        self._store.flush()
        self._is_begun = self._must_write = False
        for first, count in left:
            self._refcounts.release(first, count)
        return True

    def _take(self, count: int) -> int:
        return self._refcounts.allocate(1)[0] if count == 1 else self._refcounts.allocate_together(count)
