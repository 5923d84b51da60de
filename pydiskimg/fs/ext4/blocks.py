# SPDX-License-Identifier: MIT
"""A disk seen as numbered blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydiskimg.protocols import Buffer, Disk

_LONGEST_RUN = 1 << 20  # bytes, in addition to the contents themselves


class BlockWriter:
    """Writes at block numbers and counts the bytes."""

    def __init__(self, disk: Disk, block_size: int) -> None:
        self._disk = disk
        self._block_size = block_size
        self.bytes_written = 0

    def write(self, block: int, data: Buffer) -> None:
        """Write data, of any length, from the start of a block on."""
        self.write_at(block * self._block_size, data)

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write data from a byte on."""
        self._disk.write(offset, data)
        self.bytes_written += len(data)

    def write_all(self, blocks: Mapping[int, Buffer]) -> None:
        """Write contents by block number, neighbours together."""
        for block, data in joined(blocks, self._block_size):
            self.write(block, data)

    def zero(self, block: int, count: int) -> None:
        """Make count blocks read as zero; nothing is written if the disk already reads as zero."""
        if not self._disk.reads_as_zero:
            self._disk.zero(block * self._block_size, count * self._block_size)


def joined(blocks: Mapping[int, Buffer], block_size: int) -> Iterator[tuple[int, bytes]]:
    """Join the contents of neighbouring blocks, so that each run is one write; ascending, one run at a time."""
    start = end = -1
    parts: list[Buffer] = []
    for block, data in sorted(blocks.items()):
        if block != end or block - start >= _LONGEST_RUN // block_size:
            if parts:
                yield start, b"".join(parts)
            start, parts = block, []
        parts.append(data)
        end = block + len(data) // block_size
    if parts:
        yield start, b"".join(parts)
