# SPDX-License-Identifier: MIT
"""How large a qcow2 image of a disk is, as `qemu-img measure` tells it."""

from __future__ import annotations

from pydiskimg.images.map import map_series
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.host_offsets import IS_DATA, IS_ZERO
from pydiskimg.images.qcow2.options import chosen_options
from pydiskimg.images.qcow2.sizes import l1_entries, refcount_clusters
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.options import ChosenOptions, Qcow2Options
    from pydiskimg.protocols import Addressable, ImageSource

_STORED = IS_DATA | IS_ZERO  # of these, the flags that tell of data


def qcow2_sizes(size: int, source: ImageSource | None, options: Qcow2Options) -> tuple[int, int]:
    """Return the bytes of an image with a disk of size bytes: as a copy of source, and once all was written to.

    None for source is an empty disk. Raises as measure() does.
    """
    chosen = chosen_options("the image", options)
    l1_entries(size, chosen.cluster_size, name="the image", entry_size=chosen.l2_entry_size)
    data = -(-size // chosen.cluster_size) * chosen.cluster_size
    tables = _tables(data, chosen)
    stored = 0 if source is None else _stored(source, chosen.cluster_size)
    return tables + stored, tables + data


def bitmaps_size(file: Addressable, header: Header, cluster_size: int) -> int:
    """Return the bytes that the dirty bitmaps of the qcow2 file take in an image with such clusters."""
    if not header.has_bitmaps:
        return 0
    from pydiskimg.images.qcow2.bitmaps import BITMAP_ENTRY, read_bitmaps  # only here: few images have any

    total = directory = 0
    for bitmap in read_bitmaps(file, header):
        bits = -(-header.size // bitmap.granularity)
        clusters = -(-bits // (8 * cluster_size))
        tables = -(-clusters * layout.ENTRY_SIZE // cluster_size)
        total += (clusters + tables) * cluster_size
        directory += -(-(BITMAP_ENTRY.size + bitmap.name_size) // 8) * 8
    return total + -(-directory // cluster_size) * cluster_size


def _tables(data: int, chosen: ChosenOptions) -> int:
    """The bytes of the header and of all tables for so many bytes of data, whole clusters."""
    size: int = chosen.cluster_size
    entries = size // layout.ENTRY_SIZE
    l2_tables = -(-data // size // (size // chosen.l2_entry_size))
    l1_clusters = -(-l2_tables // entries)
    others: int = 1 + l2_tables + l1_clusters
    return (others + sum(refcount_clusters(others + data // size, size, chosen.refcount_order))) * size


def _stored(source: ImageSource, cluster_size: int) -> int:
    """The bytes of the clusters in which the source has data, by the map that `qemu-img map` shows, too."""
    clusters = end = 0
    for start, length in _data(source, cluster_size):
        first, stop = start // cluster_size, -(-(start + length) // cluster_size)
        clusters += stop - max(first, end)
        end = stop
    total: int = clusters * cluster_size
    return total


def _data(source: ImageSource, cluster_size: int) -> Iterator[tuple[int, int]]:
    """Yield start and length of what is data; what shares a cluster with it may be included."""
    for start, length, _, parts, _ in map_series(source, 0, source.size)[1]:
        if start // cluster_size == (start + length - 1) // cluster_size:
            if any(flags & _STORED == IS_DATA for _, flags in parts):
                yield start, length
            continue
        position = start
        for part_length, flags in parts:
            if flags & _STORED == IS_DATA:
                yield position, part_length
            position += part_length
