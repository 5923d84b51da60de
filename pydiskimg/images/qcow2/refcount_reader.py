# SPDX-License-Identifier: MIT
"""The reference counts that a qcow2 file stores (QEMU docs/interop/qcow2, "Host cluster management")."""

from __future__ import annotations

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.words import is_zero, numbers
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.protocols import Source

REFTABLE_RESERVED = 0x1FF  # bits 0 to 8 of an entry
MANY = 255  # the value of expanded() for every count from here on
_WINDOW = 1 << 20  # clusters that are counted at a time

_NOT_ZERO = bytes([0] + [MANY] * 255)
_UNPACKED: dict[int, list[bytes]] = {}


class RefcountReader:
    """The refcount table (limited to 8 MiB by the header's limits) and its blocks, read on demand.

    Bytes beyond the end of the file read as zero. Entries are not trusted: they may point anywhere.
    """

    def __init__(self, file: Source, header: Header) -> None:
        self._file = file
        self._order = header.refcount_order
        self._cluster_size = header.cluster_size
        length = header.refcount_table_clusters * header.cluster_size
        self.entries = numbers(read_padded(file, header.refcount_table_offset, length))
        # The number of clusters in one refcount block.
        self.block_clusters = header.cluster_size * 8 >> header.refcount_order

    def is_unreadable(self, cluster: int) -> bool:
        """True if the refcount block of the cluster is at an impossible offset, so that there is no count."""
        index = cluster // self.block_clusters
        return index < len(self.entries) and self._is_impossible(self.entries[index] & ~REFTABLE_RESERVED)

    def _is_impossible(self, offset: int) -> bool:
        return bool(offset % self._cluster_size) or offset + self._cluster_size > layout.MAX_FILE_SIZE

    def count(self, cluster: int) -> int:
        """The stored reference count of one cluster, exactly; 0 if there is no refcount block."""
        index, entry = divmod(cluster, self.block_clusters)
        block = self._block_offset(index) if index < len(self.entries) else 0
        if not block:
            return 0
        if self._order < 3:
            bits = 1 << self._order
            byte = read_padded(self._file, block + entry * bits // 8, 1)[0]
            return byte >> entry * bits % 8 & (1 << bits) - 1
        width = 1 << self._order - 3
        return int.from_bytes(read_padded(self._file, block + entry * width, width), "big")

    def blocks(self, first: int, end: int) -> Iterator[tuple[int, bytes | bytearray]]:
        """Yield (cluster, counts) for the stored counts of the clusters from first to end, one byte per cluster.

        A count of 255 or more is MANY. Clusters without a refcount block are left out.
        """
        cluster = first
        while cluster < end:
            index, entry = divmod(cluster, self.block_clusters)
            if index >= len(self.entries):
                return
            after = min(end, (index + 1) * self.block_clusters)
            block = self._block_offset(index)
            if block:
                # In whole bytes of the block, even if a window starts inside one.
                start = entry >> max(0, 3 - self._order)
                stop = -(-(after - index * self.block_clusters) * (1 << self._order) // 8)
                start = start << max(0, self._order - 3)
                counts = expanded(read_padded(self._file, block + start, stop - start), self._order)
                yield cluster, counts[entry - (start * 8 >> self._order) :][: after - cluster]
            cluster = after

    def _block_offset(self, index: int) -> int:
        """The offset of the refcount block; 0 for none and for an impossible one."""
        offset = self.entries[index] & ~REFTABLE_RESERVED
        return 0 if self._is_impossible(offset) else offset


def has_unfilled_clusters(file: Source, header: Header, stored: int) -> bool:
    """True if clearly more clusters are in use than the file system stores bytes for: many then read as zero.

    preallocation=metadata makes such images. stored is the space of the file in bytes. "Clearly" is as in QEMU: a ninth
    more, and at least two.
    """
    clusters = stored // header.cluster_size
    threshold = max(clusters * 10 // 9, clusters + 2)
    end = -(-file.size // header.cluster_size)
    if end < threshold:
        return False
    reader = RefcountReader(file, header)
    end = min(end, len(reader.entries) * reader.block_clusters)  # a file without contents may have any size
    used = 0
    for first in range(0, end, _WINDOW):
        for _, counts in reader.blocks(first, min(first + _WINDOW, end)):
            used += len(counts) - counts.count(0)
            if used >= threshold:
                return True
    return False


def expanded(block: bytes | bytearray, order: int) -> bytes | bytearray:
    """The counts in a part of a refcount block, one byte each; MANY stands for larger ones."""
    if order < 3:
        return b"".join(map(_unpacked(order).__getitem__, block))
    width = 1 << order - 3
    low = block[width - 1 :: width]
    for column in range(width - 1):
        high = block[column::width]
        if not is_zero(high):
            both = int.from_bytes(low, "big") | int.from_bytes(high.translate(_NOT_ZERO), "big")
            low = both.to_bytes(len(low), "big")
    return low


def _unpacked(order: int) -> list[bytes]:
    """For counts of 1, 2 or 4 bits: what those in one byte are, the lowest bits first, for every byte."""
    if order not in _UNPACKED:
        width, mask = 1 << order, (1 << (1 << order)) - 1
        _UNPACKED[order] = [bytes(byte >> at & mask for at in range(0, 8, width)) for byte in range(256)]
    return _UNPACKED[order]


def read_padded(file: Source, offset: int, length: int) -> bytearray:
    """Return length bytes of file from offset on; those beyond its end are zero."""
    buffer = bytearray(length)
    inside = min(length, file.size - offset)
    if inside > 0:
        with memoryview(buffer) as view:
            file.read_into(offset, view[:inside])
    return buffer
