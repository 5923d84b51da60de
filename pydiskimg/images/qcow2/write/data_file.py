# SPDX-License-Identifier: MIT
"""An image that keeps its clusters of data in another file: both are flushed in the right order."""

from __future__ import annotations

from pydiskimg.protocols import Buffer, Disk, Store, WritableBuffer
from pydiskimg.startup import Protocol


class DataFile(Disk, Protocol):
    """The external data file of an image: a Disk that grows with the image's disk."""

    def grow(self, size: int) -> None:
        """Extend it to size bytes if it is shorter; the new part reads as zero."""


class StoreWithData(Store):
    """The Store of an image whose data is in data_file: flush() makes both durable, the data first."""

    name: str

    def __init__(self, store: Store, data_file: DataFile) -> None:
        self.name = store.name
        self._store = store
        self._data_file = data_file

    @property
    def size(self) -> int:
        return self._store.size

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        self._store.read_into(offset, buffer)

    def write(self, offset: int, data: Buffer) -> None:
        self._store.write(offset, data)

    def flush(self) -> None:
        self._data_file.flush()
        self._store.flush()

    def drop_cache(self) -> None:
        """Make the next reads come from the devices if the system can do that."""
        self._data_file.drop_cache()
        self._store.drop_cache()
