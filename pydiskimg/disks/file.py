# SPDX-License-Identifier: MIT
"""Regular files as Disks; a newly made file can take contents whose length is known only at the end."""

from __future__ import annotations

import os
from _thread import allocate_lock

from pydiskimg.disks.descriptor import DescriptorDisk
from pydiskimg.linux.fileio import grow_file
from pydiskimg.protocols import check_range
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydiskimg.disks.zeroing import Rung
    from pydiskimg.extents import Extent
    from pydiskimg.protocols import Buffer, FileRange


SECTOR_SIZE = 512


class FileDisk(DescriptorDisk):
    """A Disk over the descriptor of a regular file, which the caller owns.

    reads_as_zero is True only for a file that the caller has just made. Sectors are 512 bytes, as hypervisors present a
    file, unless the caller gives another size.
    """

    def __init__(self, fd: int, name: str, *, sector_size: int = SECTOR_SIZE, reads_as_zero: bool = False) -> None:
        super().__init__(
            fd,
            name,
            size=os.fstat(fd).st_size,
            sector_size=sector_size,
            reads_as_zero=reads_as_zero,
        )
        self._writing = allocate_lock()

    def write(self, offset: int, data: Buffer) -> None:
        # The kernel lets one thread at a time write to a file; others would wait for it and keep a processor busy.
        with self._writing:
            super().write(offset, data)

    def share(self, offset: int, ranges: Sequence[FileRange]) -> bool:
        check_range(self, offset, sum(length for _, _, length in ranges))
        return self.share_blocks(offset, ranges)

    def rungs(self) -> Sequence[Rung]:
        from functools import partial

        from pydiskimg.disks.zeroing import Rung
        from pydiskimg.linux.fallocate import punch_hole, zero_range

        return (
            Rung("punch hole", partial(punch_hole, self.fd), frees=True),
            Rung("zero range", partial(zero_range, self.fd)),
        )

    def stored_extents(self) -> Iterator[Extent]:
        """Yield the extents of Disk.stored_extents(), from the file system's own map."""
        from pydiskimg.linux.holes import stored_and_holes

        return stored_and_holes(self.fd, self.size, name=self.name)

    def grow(self, size: int) -> None:
        """Extend the file to size bytes if it is shorter; the new part reads as zero. Raises StorageError."""
        if size <= self.size:
            return
        grow_file(self.fd, size, name=self.name)
        self.size = size


class GrowingDisk(FileDisk):
    """A Disk over the descriptor of a regular file that the caller has just made, and owns."""

    def __init__(self, fd: int, name: str) -> None:
        super().__init__(fd, name, reads_as_zero=True)
