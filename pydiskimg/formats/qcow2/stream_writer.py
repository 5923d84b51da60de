# SPDX-License-Identifier: MIT
"""The bytes of a streamed qcow2 in their order, once the length of every cluster in it is known."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydiskimg.errors import InvalidImageError
from pydiskimg.formats.qcow2 import create, layout
from pydiskimg.formats.qcow2.compress import Compress, compressor, stored_deflate
from pydiskimg.formats.qcow2.stream_layout import Contents, Layout, Packer, big_endian

COPIED = 1 << 63  # refcount is exactly one; never set for a compressed cluster


def metadata(contents: Contents, places: Layout, *, compressed: bool, name: str) -> Iterator[bytes]:
    """Yield everything before the data, in pieces of a cluster."""
    yield create.pack_header(places.plan, name=name).ljust(contents.cluster_size, b"\0")
    yield from _refcount_table(places)
    yield from _refcount_blocks(contents, places, compressed=compressed)
    yield from _l1_table(contents, places)
    for _, lengths in contents_with_places(contents, places):
        yield _l2_table(lengths, contents.cluster_size, compressed=compressed)


def contents_with_places(contents: Contents, places: Layout) -> Iterator[tuple[int, list[tuple[int, int, int]]]]:
    """Yield (L1 index, [(entry, offset in the stream, length)]) of the clusters that are stored."""
    packer = Packer(contents.cluster_size)
    start = places.data_offset
    for index, lengths in contents.tables():
        yield index, [(entry, start + packer.place(length), length) for entry, length in enumerate(lengths) if length]


def _refcount_table(places: Layout) -> Iterator[bytes]:
    cluster_size = places.plan.cluster_size
    per_cluster = cluster_size // layout.ENTRY_SIZE
    first = (1 + places.plan.refcount_table_clusters) * cluster_size
    for start in range(0, places.plan.refcount_table_clusters * per_cluster, per_cluster):
        count = max(0, min(per_cluster, places.blocks - start))
        offsets = array("Q", range(first + start * cluster_size, first + (start + count) * cluster_size, cluster_size))
        yield big_endian(offsets).ljust(cluster_size, b"\0")


def _refcount_blocks(contents: Contents, places: Layout, *, compressed: bool) -> Iterator[bytes]:
    cluster_size = places.plan.cluster_size
    per_block = cluster_size // create.REFCOUNT_SIZE
    ones = (places.data_offset if compressed else places.end) // cluster_size
    whole = b"\0\1" * per_block
    for _ in range(ones // per_block):
        yield whole
    if not compressed:
        if ones % per_block:
            yield (b"\0\1" * (ones % per_block)).ljust(cluster_size, b"\0")
        done = -(-ones // per_block)
    else:
        done = ones // per_block
        for block in _shared_refcounts(contents, places, ones, per_block):
            yield block
            done += 1
    for _ in range(places.blocks - done):
        yield bytes(cluster_size)


def _shared_refcounts(contents: Contents, places: Layout, ones: int, per_block: int) -> Iterator[bytes]:
    """Yield the blocks from the one on that the data begins in: each cluster counts all data that touches it.

    No cluster is touched by 65536: zstd needs 13 bytes for up to 128 KiB and 4 for each further 128 KiB, deflate
    more, so that 2 MiB hold fewer of any size.
    """
    shift = contents.cluster_size.bit_length() - 1
    base = ones - ones % per_block
    # Data may reach over the end of the block: at most two clusters long, it touches three.
    counts = array("H", [1] * (ones % per_block)) + array("H", bytes(2 * (per_block - ones % per_block + 3)))
    end = places.data_offset
    for _, clusters in contents_with_places(contents, places):
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


def _l1_table(contents: Contents, places: Layout) -> Iterator[bytes]:
    cluster_size = contents.cluster_size
    per_cluster = cluster_size // layout.ENTRY_SIZE
    indices, position, offset = contents.table_indices, 0, places.l2_offset
    for first in range(0, places.plan.l1_size, per_cluster):
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
    """Stored clusters that are read, and written, in one go: bytes of the guest, at most 2 MiB of them together.

    extents are (start, length) in bytes, whole clusters; places and lengths are each cluster's in the stream.
    """

    extents: list[tuple[int, int]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)


def batches(contents: Contents, places: Layout, limit: int) -> Iterator[Batch]:
    """Yield the stored clusters in order, in batches of at most limit bytes of the guest (a multiple of a cluster)."""
    cluster_size, batch = contents.cluster_size, Batch()
    most = limit // cluster_size
    for index, clusters in contents_with_places(contents, places):
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
            batch.places.append(start)
            batch.lengths.append(length)
    if batch.lengths:
        yield batch


def cluster_compressor(compression_type: str, *, name: str) -> Compress:
    """Return the function for a stream's clusters: what does not shrink is stored, a few bytes longer.

    Raises UnsupportedImageError as compressor() does.
    """
    compress = compressor(compression_type, name=name)
    if compression_type != "zlib":
        return compress  # zstd stores such data by itself

    def deflate(cluster: bytes | bytearray | memoryview) -> bytes:
        data = compress(cluster)
        return data if len(data) < len(cluster) else stored_deflate(cluster)

    return deflate


def joined(batch: Batch, compressed: list[bytes], *, name: str) -> bytes:
    """Return a batch's compressed clusters as they lie in the stream.

    Raises InvalidImageError when one is not as long as it was found to be in the first pass: the image was changed.
    """
    parts: list[bytes] = []
    position = batch.places[0]
    for place, length, data in zip(batch.places, batch.lengths, compressed, strict=True):
        if len(data) != length:
            raise InvalidImageError(
                f"{name}: was changed while it was read: a cluster that had {length} bytes compressed has {len(data)} "
                "now; what was written is not complete and cannot be used"
            )
        parts += (bytes(place - position), data)
        position = place + length
    return b"".join(parts)
