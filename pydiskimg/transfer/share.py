# SPDX-License-Identifier: MIT
"""Let a target have the blocks of the source's files instead of a copy, where both are in one file system that can.

file of the image   | c1 |    | c3 | c2 |        where the source's bytes are: file_ranges()
                       \\         X
file of the target  | c1 | c2 | c3 |              Disk.share(): the same blocks, nothing is read or written
"""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import KIB

if TYPE_CHECKING:
    from pydiskimg.extents import Extent
    from pydiskimg.protocols import Disk, Source

# The blocks of nearly all file systems; one with larger blocks refuses.
BLOCK_SIZE = 4 * KIB


class Sharing:
    """Shares pieces of source with disk, from several threads, until the system refuses once."""

    def __init__(self, source: Source, disk: Disk) -> None:
        self._source = source
        self._disk = disk
        self._is_refused = False

    def copy(self, piece: Extent) -> bool:
        """Share a piece of data; False if it is not shared, or not completely: it must be read and written then.

        That is so if some bytes are not stored as such in files, or do not lie at multiples of a block.
        """
        if self._is_refused or (piece.start | piece.length) % BLOCK_SIZE:
            return False
        ranges = self._source.file_ranges(piece.start, piece.length)
        if ranges is None or any((at | size) % BLOCK_SIZE for _, at, size in ranges):
            return False
        is_done = self._disk.share(piece.start, ranges)
        self._is_refused = not is_done
        return is_done
