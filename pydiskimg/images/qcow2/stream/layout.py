# SPDX-License-Identifier: MIT
"""The layout of a streamed qcow2: every cluster's offset is known before the first byte is written.

| header | refcount table | refcount blocks | L1 table | L2 tables | data, in the order of the guest's addresses |

There are no gaps between these and no bytes after them; the last cluster is padded with zeros.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.sizes import l1_entries, refcount_clusters
from pydiskimg.images.qcow2.stream.spool import Spool
from pydiskimg.images.qcow2.write import create
from pydiskimg.units import GIB, format_bytes

# The limit of tables that readers keep: enough for 64 TiB in clusters of 64 KiB, all of them allocated.
TABLES_LIMIT = 16 * GIB


class Packer:
    """Places each cluster's data after the previous one's, byte by byte; data that would reach too far begin with a
    sector.

    A descriptor's sector count has cluster_bits - 8 bits: it covers two clusters from the first sector of the data.
    Only a cluster of 512 bytes that does not shrink may need more. position is bytes from the first data.
    """

    def __init__(self, cluster_size: int) -> None:
        self.position = 0
        self._reach = 2 * cluster_size

    def offset(self, length: int) -> int:
        """Return the offset of data of length bytes."""
        start = self.position
        if start % layout.SECTOR + length > self._reach:
            start += -start % layout.SECTOR
        self.position = start + length
        return start


class Contents:
    """The clusters in a stream and the length of each in it (bytes), added in ascending order.

    One L2 table's lengths are kept as one record in the spool; tables without data are not kept.
    """

    def __init__(self, cluster_size: int, spool: Spool) -> None:
        self.cluster_size = cluster_size
        self.table_indices = array("I")
        self._entries = cluster_size // layout.ENTRY_SIZE
        self._spool = spool
        self._packer = Packer(cluster_size)
        self._current = array("I")

    @property
    def data_length(self) -> int:
        """Bytes of all data, without the padding of the last cluster."""
        return self._packer.position

    def add(self, first: int, lengths: Sequence[int]) -> None:
        """Add the clusters from number first on; 0 is one that is not stored."""
        for length in lengths:
            if length:
                self._packer.offset(length)
                self._record(first // self._entries)[first % self._entries] = length
            first += 1

    def finish(self) -> None:
        """Write the last record, after the last add()."""
        if self._current:
            self._spool.append(self._current.tobytes())
            self._current = array("I")

    def tables(self) -> Iterator[tuple[int, array[int]]]:
        """Yield (L1 index, the length of each of the table's clusters) in ascending order."""
        record = self._entries * self._current.itemsize
        for number, index in enumerate(self.table_indices):
            yield index, array("I", self._spool.read(number * record, record))

    def _record(self, index: int) -> array[int]:
        if not self.table_indices or self.table_indices[-1] != index:
            self.finish()
            self.table_indices.append(index)
            self._current = array("I", bytes(self._entries * self._current.itemsize))
        return self._current


@dataclass(frozen=True, slots=True)
class Layout:
    """The offsets of all parts. Offsets are bytes; blocks counts refcount blocks, end is the length of the stream."""

    plan: create.Plan
    blocks: int
    l2_offset: int
    data_offset: int
    end: int


def lay_out(contents: Contents, size: int, *, version: int, compression_type: str, name: str) -> Layout:
    """Return the layout of a stream of contents for a virtual disk of size bytes.

    Raises UnsupportedImageError if it exceeds the limits of an image.
    """
    cluster_size = contents.cluster_size
    l1_size = l1_entries(size, cluster_size, name=name)
    l1_clusters = -(-l1_size * layout.ENTRY_SIZE // cluster_size)
    tables, data = len(contents.table_indices), -(-contents.data_length // cluster_size)
    table_clusters, blocks = refcount_clusters(1 + l1_clusters + tables + data, cluster_size)
    if table_clusters * cluster_size > layout.MAX_REFCOUNT_TABLE_SIZE:
        raise UnsupportedImageError(
            f"{name}: {format_bytes(contents.data_length)} of data need more refcounts than an image with clusters of "
            f"{cluster_size} bytes can have; use a larger cluster size"
        )
    l1_cluster = 1 + table_clusters + blocks
    plan = create.Plan(
        version=version,
        cluster_size=cluster_size,
        size=size,
        l1_size=l1_size,
        l1_table_offset=l1_cluster * cluster_size if l1_size else 0,
        refcount_table_offset=cluster_size,
        refcount_table_clusters=table_clusters,
        compression_type=compression_type,
    )
    l2_cluster = l1_cluster + l1_clusters
    data_cluster = l2_cluster + tables
    if data_cluster * cluster_size > TABLES_LIMIT:
        raise UnsupportedImageError(
            f"{name}: the tables of a stream would have {format_bytes(data_cluster * cluster_size)}, at most "
            f"{format_bytes(TABLES_LIMIT)} are possible; use a larger cluster size"
        )
    return Layout(
        plan, blocks, l2_cluster * cluster_size, data_cluster * cluster_size, (data_cluster + data) * cluster_size
    )
