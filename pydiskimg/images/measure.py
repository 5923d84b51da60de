# SPDX-License-Identifier: MIT
"""measure(): how large the file of an image will be."""

from __future__ import annotations

from collections import namedtuple
from itertools import compress
from operator import add, eq

from pydiskimg.images.map import map_columns
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.bitmaps import BITMAP_ENTRY, read_bitmaps
from pydiskimg.images.qcow2.host_offsets import IS_DATA, IS_ZERO
from pydiskimg.images.qcow2.options import chosen_options
from pydiskimg.images.qcow2.write.create import l1_entries, refcount_clusters, round_size
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Unpack

    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.options import ChosenOptions, Qcow2Options
    from pydiskimg.protocols import Addressable, ImageSource


_IS_DATA = bytes(flags & (IS_DATA | IS_ZERO) == IS_DATA for flags in range(256))  # by the flags of a row
_Measured = namedtuple("_Measured", ("required", "fully_allocated"))


class Measured(_Measured):
    """Bytes of the file: as a copy of the source makes it, at most, and once everything was written to."""

    __slots__ = ()


def measure(
    size: int,
    *,
    format: str,  # noqa: A002 - the field's word, as in open_image()
    source: ImageSource | None = None,
    is_preallocated: bool = False,
    **options: Unpack[Qcow2Options],
) -> Measured:
    """Return how large the file of an image with a virtual disk of size bytes becomes.

    format is "raw" or "qcow2", source what is to be copied into it, None for an image that begins empty. options are
    those of a qcow2 image; is_preallocated is for preallocation "falloc" and "full". The numbers are those of
    qemu-img measure, which counts all tables of a disk that is full. Raises DoesNotFitError and UnsupportedImageError
    for an image that cannot be made, and what reading the source's extents raises.
    """
    if format == "raw":
        whole = size if source is not None else round_size(size)
        return Measured(whole, whole)
    chosen = chosen_options("the image", options)
    size = round_size(size)
    l1_entries(size, chosen.cluster_size, name="the image", entry_size=chosen.l2_entry_size)
    data = -(-size // chosen.cluster_size) * chosen.cluster_size
    whole = data + _tables(data, chosen)
    if is_preallocated:
        return Measured(whole, whole)
    stored = 0 if source is None else _stored(source, chosen.cluster_size)
    return Measured(whole - data + stored, whole)


def bitmaps_size(file: Addressable, header: Header, cluster_size: int) -> int:
    """Return the bytes that the dirty bitmaps of the qcow2 file take in an image with such clusters."""
    if not header.has_bitmaps:
        return 0
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
    clusters, before = 0, -1  # the last cluster that was counted
    for starts, lengths, _, flags, _ in map_columns(source, 0, source.size)[1]:
        is_data = bytes(flags).translate(_IS_DATA)
        firsts = [start // cluster_size for start in compress(starts, is_data)]
        lasts = [(end - 1) // cluster_size for end in compress(map(add, starts, lengths), is_data)]
        if firsts:
            # One that ends where the next begins is counted once.
            clusters += sum(lasts) - sum(firsts) + len(firsts) - sum(map(eq, firsts, [before, *lasts]))
            before = lasts[-1]
    return clusters * cluster_size
