# SPDX-License-Identifier: MIT
"""How large a qcow2 image of a disk is, computed as by `qemu-img measure`."""

from __future__ import annotations

from _operator import add, eq  # operator.py only re-exports them
from itertools import compress

from pydiskimg.images.map import map_columns
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.host_offsets import IS_DATA, IS_ZERO
from pydiskimg.images.qcow2.options import chosen_options
from pydiskimg.images.qcow2.sizes import l1_entries, refcount_clusters
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.options import ChosenOptions, Qcow2Options
    from pydiskimg.protocols import Addressable, ImageSource

_IS_DATA = bytes(flags & (IS_DATA | IS_ZERO) == IS_DATA for flags in range(256))  # by the flags of a row


def qcow2_sizes(size: int, source: ImageSource | None, options: Qcow2Options) -> tuple[int, int]:
    """Return the size (bytes) of an image with a disk of size bytes: as a copy of source, and after all was written to.

    source None means an empty disk. Raises as measure() does.
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
    from pydiskimg.images.qcow2.bitmaps import BITMAP_ENTRY, read_bitmaps  # imported here: few images have any

    total = directory = 0
    for bitmap in read_bitmaps(file, header):
        bits = -(-header.size // bitmap.granularity)
        clusters = -(-bits // (8 * cluster_size))
        tables = -(-clusters * layout.ENTRY_SIZE // cluster_size)
        total += (clusters + tables) * cluster_size
        directory += -(-(BITMAP_ENTRY.size + bitmap.name_size) // 8) * 8
    return total + -(-directory // cluster_size) * cluster_size


def _tables(data: int, chosen: ChosenOptions) -> int:
    """The bytes of the header and of all tables for that many bytes of data, in whole clusters."""
    size: int = chosen.cluster_size
    entries = size // layout.ENTRY_SIZE
    l2_tables = -(-data // size // (size // chosen.l2_entry_size))
    l1_clusters = -(-l2_tables // entries)
    others: int = 1 + l2_tables + l1_clusters
    return (others + sum(refcount_clusters(others + data // size, size, chosen.refcount_order))) * size


def _stored(source: ImageSource, cluster_size: int) -> int:
    """The bytes of the clusters in which the source has data, by the map that `qemu-img map` also shows."""
    clusters, before = 0, -1  # the last counted cluster
    for starts, lengths, _, flags, _ in map_columns(source, 0, source.size)[1]:
        is_data = bytes(flags).translate(_IS_DATA)
        firsts = [start // cluster_size for start in compress(starts, is_data)]
        lasts = [(end - 1) // cluster_size for end in compress(map(add, starts, lengths), is_data)]
        if firsts:
            # A cluster that contains an end and the next start is counted once.
            clusters += sum(lasts) - sum(firsts) + len(firsts) - sum(map(eq, firsts, [before, *lasts]))
            before = lasts[-1]
    return clusters * cluster_size
