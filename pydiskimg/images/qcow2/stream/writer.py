# SPDX-License-Identifier: MIT
"""Write the bytes of a streamed qcow2 in order, once the length of every cluster in it is known."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.compress import compressor, stored_deflate
from pydiskimg.images.qcow2.stream.checksums import (
    CLUSTER_CHECKSUM_SIZE,
    checksum_of_cluster,
    checksum_of_tables,
    pack_checks,
)
from pydiskimg.images.qcow2.stream.layout import Contents, Layout, Packer
from pydiskimg.images.qcow2.stream.spool import Spool
from pydiskimg.images.qcow2.words import big_endian
from pydiskimg.images.qcow2.write import create
from pydiskimg.units import MIB

COPIED = 1 << 63  # refcount is exactly one; never set for a compressed cluster
QEMU_WINDOW = -12  # raw deflate, with the window that QEMU decompresses with
SLACK = 2  # bytes
NEARLY = 16  # data that shrink by less get enough room to be stored


def metadata(contents: Contents, laid_out: Layout, spool: Spool, *, compressed: bool, name: str) -> Iterator[bytes]:
    """Yield all bytes before the data.

    The tables are kept in spool, which must be empty: their checksum precedes them.
    """
    plan = laid_out.plan

    def header(checksum: int) -> bytes:
        checks = pack_checks(checksum, clusters=compressed)
        return create.pack_header(plan._replace(extensions=checks), name=name).ljust(contents.cluster_size, b"\0")

    def parts() -> Iterator[bytes]:
        yield header(0)
        for part in _tables(contents, laid_out, compressed=compressed):
            spool.append(part)
            yield part

    yield header(checksum_of_tables(parts(), create.header_length(plan)))
    for start in range(0, spool.size, MIB):
        yield spool.read(start, min(MIB, spool.size - start))


def _tables(contents: Contents, laid_out: Layout, *, compressed: bool) -> Iterator[bytes]:
    yield from _refcount_table(laid_out)
    yield from _refcount_blocks(contents, laid_out, compressed=compressed)
    yield from _l1_table(contents, laid_out)
    for _, lengths in located_contents(contents, laid_out):
        yield _l2_table(lengths, contents.cluster_size, compressed=compressed)


def located_contents(contents: Contents, laid_out: Layout) -> Iterator[tuple[int, list[tuple[int, int, int]]]]:
    """Yield (L1 index, [(entry, offset in the stream, length)]) of the stored clusters."""
    packer = Packer(contents.cluster_size)
    start = laid_out.data_offset
    for index, lengths in contents.tables():
        yield index, [(entry, start + packer.offset(length), length) for entry, length in enumerate(lengths) if length]


def _refcount_table(laid_out: Layout) -> Iterator[bytes]:
    cluster_size = laid_out.plan.cluster_size
    per_cluster = cluster_size // layout.ENTRY_SIZE
    first = (1 + laid_out.plan.refcount_table_clusters) * cluster_size
    for start in range(0, laid_out.plan.refcount_table_clusters * per_cluster, per_cluster):
        count = max(0, min(per_cluster, laid_out.blocks - start))
        offsets = array("Q", range(first + start * cluster_size, first + (start + count) * cluster_size, cluster_size))
        yield big_endian(offsets).ljust(cluster_size, b"\0")


def _refcount_blocks(contents: Contents, laid_out: Layout, *, compressed: bool) -> Iterator[bytes]:
    cluster_size = laid_out.plan.cluster_size
    per_block = cluster_size // create.REFCOUNT_SIZE
    ones = (laid_out.data_offset if compressed else laid_out.end) // cluster_size
    whole = b"\0\1" * per_block
    for _ in range(ones // per_block):
        yield whole
    if not compressed:
        if ones % per_block:
            yield (b"\0\1" * (ones % per_block)).ljust(cluster_size, b"\0")
        done = -(-ones // per_block)
    else:
        done = ones // per_block
        for block in _shared_refcounts(contents, laid_out, ones, per_block):
            yield block
            done += 1
    for _ in range(laid_out.blocks - done):
        yield bytes(cluster_size)


def _shared_refcounts(contents: Contents, laid_out: Layout, ones: int, per_block: int) -> Iterator[bytes]:
    """Yield the refcount blocks from the one of the first data on: each cluster counts all data that touch it.

    A count of 65536 cannot occur: zstd needs 13 bytes for up to 128 KiB and 4 for each further 128 KiB, deflate more,
    so that fewer fit into 2 MiB.
    """
    shift = contents.cluster_size.bit_length() - 1
    base = ones - ones % per_block
    # Data may extend beyond the end of the block: with at most two clusters of length, they touch three.
    counts = array("H", [1] * (ones % per_block)) + array("H", bytes(2 * (per_block - ones % per_block + 3)))
    end = laid_out.data_offset
    for _, clusters in located_contents(contents, laid_out):
        for _, start, length in clusters:
            end = start + length
            first, last = (start >> shift) - base, (end - 1 >> shift) - base
            if first >= per_block:
                yield big_endian(counts[:per_block])
                counts = counts[per_block:] + array("H", bytes(2 * per_block))
                base, first, last = base + per_block, first - per_block, last - per_block
            for cluster in range(first, last + 1):
                counts[cluster] += 1
    used = -(-end // contents.cluster_size) - base
    if used > 0:
        yield big_endian(counts[:per_block])
    if used > per_block:
        yield big_endian(counts[per_block:]).ljust(contents.cluster_size, b"\0")


def _l1_table(contents: Contents, laid_out: Layout) -> Iterator[bytes]:
    cluster_size = contents.cluster_size
    per_cluster = cluster_size // layout.ENTRY_SIZE
    indices, position, offset = contents.table_indices, 0, laid_out.l2_offset
    for first in range(0, laid_out.plan.l1_size, per_cluster):
        entries = array("Q", bytes(cluster_size))
        while position < len(indices) and indices[position] < first + per_cluster:
            entries[indices[position] - first] = offset | COPIED
            position += 1
            offset += cluster_size
        yield big_endian(entries)


def _l2_table(clusters: list[tuple[int, int, int]], cluster_size: int, *, compressed: bool) -> bytes:
    entries = array("Q", bytes(cluster_size))
    offset_bits = 62 - (cluster_size.bit_length() - 1 - 8)
    for entry, start, length in clusters:
        if compressed:
            sectors = (start % layout.SECTOR + length - 1) // layout.SECTOR
            entries[entry] = layout.L2_COMPRESSED | sectors << offset_bits | start
        else:
            entries[entry] = start | COPIED
    return big_endian(entries)


@dataclass(slots=True)
class Batch:
    """Stored clusters that are read and written together: at most 2 MiB of the guest's bytes.

    extents are (start, length) in bytes, whole clusters; guests has each cluster's offset on the virtual disk, offsets
    and lengths those in the stream.
    """

    extents: list[tuple[int, int]] = field(default_factory=list)
    guests: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)


def batches(contents: Contents, laid_out: Layout, limit: int) -> Iterator[Batch]:
    """Yield the stored clusters in order, in batches of at most limit bytes of the guest (a multiple of a cluster)."""
    cluster_size, batch = contents.cluster_size, Batch()
    most = limit // cluster_size
    for index, clusters in located_contents(contents, laid_out):
        first = index * (cluster_size // layout.ENTRY_SIZE)
        for entry, start, length in clusters:
            if len(batch.lengths) == most:
                yield batch
                batch = Batch()
            guest = (first + entry) * cluster_size
            if batch.extents and sum(batch.extents[-1]) == guest:
                batch.extents[-1] = batch.extents[-1][0], batch.extents[-1][1] + cluster_size
            else:
                batch.extents.append((guest, cluster_size))
            batch.guests.append(guest)
            batch.offsets.append(start)
            batch.lengths.append(length)
    if batch.lengths:
        yield batch


class ClusterCompressor:
    """Compresses the clusters of a stream; those that do not shrink are stored, a few bytes longer. Safe from threads.

    The checksum of a cluster follows its data.

    The same cluster does not always give the same length: ISA-L uses uncleared memory, which changes a byte once in ten
    thousand clusters. Therefore a cluster's room is a little longer than its data were at first, and shorter data are
    padded: a reader stops at the end of the cluster.
    """

    def __init__(self, compression_type: str, *, name: str) -> None:
        """Raises UnsupportedImageError as compressor() does; name is the stream's, for its text."""
        self._compress = compressor(compression_type, name=name)
        self._is_zlib = compression_type == "zlib"

    def length(self, cluster: memoryview) -> int:
        """Return how many bytes of room the cluster's data get."""
        length = len(self._compress(cluster))
        if self._is_zlib:  # zstd always gives the same result, and itself stores data that do not shrink
            length = length + SLACK if length + NEARLY < len(cluster) else len(stored_deflate(cluster))
        return length + CLUSTER_CHECKSUM_SIZE

    def fitted(self, cluster: memoryview, guest: int, length: int) -> bytes | None:
        """Return the data of the cluster at offset guest, padded to length; None if they cannot be made as short."""
        most = length - CLUSTER_CHECKSUM_SIZE
        data = self._compress(cluster)
        if len(data) >= len(cluster) and self._is_zlib:
            data = stored_deflate(cluster)
        if len(data) > most and self._is_zlib:
            thorough = zlib.compressobj(9, zlib.DEFLATED, QEMU_WINDOW)
            data = thorough.compress(cluster) + thorough.flush()
        if len(data) > most:
            return None
        return (data + checksum_of_cluster(guest, cluster)).ljust(length, b"\0")


def joined(batch: Batch, compressed: Iterable[bytes]) -> bytes:
    """Return a batch's compressed clusters, each of the batch's length, as they are in the stream."""
    parts: list[bytes] = []
    position = batch.offsets[0]
    for offset, data in zip(batch.offsets, compressed, strict=True):
        parts += (bytes(offset - position), data)
        position = offset + len(data)
    return b"".join(parts)
