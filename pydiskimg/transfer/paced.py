# SPDX-License-Identifier: MIT
"""A Disk with a limited number of bytes per second."""

from __future__ import annotations

import threading
import time

from pydiskimg.protocols import Disk
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.extents import Extent
    from pydiskimg.protocols import Buffer, WritableBuffer


class PacedDisk(Disk):
    """A Disk whose write() takes at most rate bytes per second on average, from all threads together.

    Zeroing is not limited. The disk stays the caller's.

    >>> from pydiskimg import MemoryDisk, PacedDisk, copy
    >>> copied = copy(MemoryDisk(1 << 20), PacedDisk(MemoryDisk(1 << 20), 100 << 20))
    """

    name: str
    size: int

    def __init__(self, disk: Disk, rate: int) -> None:
        if rate <= 0:
            raise ValueError(f"{disk.name}: a rate of {rate} bytes a second is not possible; expected 1 or more")
        self.name = disk.name
        self.size = disk.size
        self._disk = disk
        self._rate = rate
        self._lock = threading.Lock()
        self._next = time.monotonic()

    @property
    def sector_size(self) -> int:
        return self._disk.sector_size

    @property
    def reads_as_zero(self) -> bool:
        return self._disk.reads_as_zero

    @property
    def frees_zeros(self) -> bool:
        return self._disk.frees_zeros

    @property
    def format(self) -> str:
        return self._disk.format

    @property
    def unit(self) -> int | None:
        return self._disk.unit

    def extents(self) -> Iterator[Extent]:
        return self._disk.extents()

    def stored_extents(self) -> Iterator[Extent]:
        return self._disk.stored_extents()

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        self._disk.read_into(offset, buffer)

    def write(self, offset: int, data: Buffer) -> None:
        with self._lock:
            begin = max(self._next, time.monotonic())
            self._next = begin + memoryview(data).nbytes / self._rate
        if (pause := begin - time.monotonic()) > 0:
            time.sleep(pause)
        self._disk.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._disk.zero(offset, length)

    def flush(self) -> None:
        self._disk.flush()

    def drop_cache(self) -> None:
        self._disk.drop_cache()
