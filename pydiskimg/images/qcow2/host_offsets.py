# SPDX-License-Identifier: MIT
"""Where one layer of a qcow2 image keeps the guest's bytes, also those that read as zero and yet have an offset."""

from __future__ import annotations

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.runs import COMPRESSED, DATA, HOLE, MIXED, ZERO, runs_of_kinds
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from pydiskimg.images.qcow2.l2_tables import L2Table
    from pydiskimg.images.qcow2.mapping import Mapping

# What is known about a piece; several of them at once. HOLE is none of the first three.
IS_ZERO, IS_DATA, IS_COMPRESSED, HAS_OFFSET = 1, 2, 4, 8

Piece: TypeAlias = "tuple[int, int, int, int]"
"""start, length, flags, and the host offset of the first byte (with HAS_OFFSET)."""

Parts: TypeAlias = "Sequence[tuple[int, int]]"
"""(length, flags) of bytes that adjoin; the flags of neighbours differ, all or none of them have HAS_OFFSET."""

Series: TypeAlias = "tuple[int, int, Parts, int]"
"""start, length, parts and host: pieces in a row whose host offsets, where they have them, adjoin as well.

The subclusters of a cluster are one series: a small image can have millions of pieces, too many for a step each.
"""

_FLAGS = {HOLE: 0, ZERO: IS_ZERO, DATA: IS_DATA, COMPRESSED: IS_DATA | IS_COMPRESSED}
_LOCATED_DATA = IS_DATA | HAS_OFFSET
_AS_FOUND = tuple(range(16))


def host_ranges(mapping: Mapping, offset: int, length: int) -> Iterator[Piece]:
    """Yield the pieces of [offset, offset + length), in order; neighbours may be alike. Errors as of Mapping.runs()."""
    for start, _, parts, first_host in host_series(mapping, offset, length):
        position, host = start, first_host
        for piece_length, flags in parts:
            yield position, piece_length, flags, host
            position += piece_length
            host += piece_length


def host_series(
    mapping: Mapping, offset: int, length: int, translation: tuple[int, ...] = _AS_FOUND
) -> Iterator[Series]:
    """Yield what host_ranges() does as series, with translation[flags] in place of the flags of each piece."""
    for start, end, table in mapping.tables(offset, length):
        if table is None:
            yield start, end - start, ((end - start, translation[0]),), 0
        else:
            yield from _in_table(mapping, table, start, end, translation)


def _in_table(mapping: Mapping, table: L2Table, start: int, end: int, translation: tuple[int, ...]) -> Iterator[Series]:
    header = mapping.header
    bits, first, extended = header.cluster_bits, start - start % header.l2_span, header.extended_l2
    last_index = (end - 1 - first >> bits) + 1
    located_data = translation[_LOCATED_DATA]
    position = start
    begin = start - first >> bits
    for kind, index_in_part, after_in_part in runs_of_kinds(table.kinds[begin:last_index]):
        index, after = begin + index_in_part, begin + after_in_part
        stop = min(first + (after << bits), end)
        length = stop - position
        if kind == MIXED:
            yield from _in_clusters(mapping, table, index, position, stop, translation)
        elif kind == DATA and after == index + 1:
            host = table.host(index) + position - first - (index << bits)
            yield position, length, ((length, located_data),), host
        elif kind == DATA or ((kind == ZERO or (kind == HOLE and extended)) and _have_offsets(table, index, after)):
            yield from _with_offsets(mapping, table, index, position, stop, translation)
        else:
            yield position, length, ((length, translation[_FLAGS[kind]]),), 0
        position = stop


def _have_offsets(table: L2Table, index: int, after: int) -> bool:
    """True when one of these clusters, read as zero or from the backing file, has a host offset nevertheless."""
    highest = max(table.words[index * table.step : after * table.step : table.step])
    return highest > layout.L2_ZERO


def _with_offsets(
    mapping: Mapping, table: L2Table, index: int, position: int, stop: int, translation: tuple[int, ...]
) -> Iterator[Series]:
    """The pieces of clusters of one kind that have, or may have, a host offset: split where these do not adjoin."""
    size = mapping.header.cluster_size
    flags = _FLAGS[table.kinds[index]]
    inside = position % size
    while position < stop:
        piece_end = min(position - inside + size, stop)
        length = piece_end - position
        if _has_offset(mapping, table, index):
            yield position, length, ((length, translation[flags | HAS_OFFSET]),), table.host(index) + inside
        else:
            yield position, length, ((length, translation[flags]),), 0
        position, inside, index = piece_end, 0, index + 1


def _has_offset(mapping: Mapping, table: L2Table, index: int) -> bool:
    if table.host(index):
        return True
    # In an external data file the offset may be 0: then the copied bit tells, for clusters that can hold data.
    can_hold_data = table.kinds[index] == DATA or mapping.header.extended_l2
    return mapping.header.has_data_file and can_hold_data and bool(table.entry(index) & layout.COPIED)


def _in_clusters(
    mapping: Mapping, table: L2Table, index: int, position: int, stop: int, translation: tuple[int, ...]
) -> Iterator[Series]:
    """The pieces of clusters whose subclusters differ: a series for each cluster."""
    size, unit = mapping.header.cluster_size, mapping.header.subcluster_size
    begin = position - position % size
    kinds = table.subclusters(index, index + -(-(stop - begin) // size))
    at = 0
    known: dict[tuple[bytes, bool], Parts] = {}
    for cluster in range(begin, stop, size):
        has_offset = _has_offset(mapping, table, index)
        key = kinds[at : at + layout.SUBCLUSTERS], has_offset
        parts = known.get(key) or known.setdefault(key, _parts(*key, unit, translation))
        start, end = max(cluster, position), min(cluster + size, stop)
        if end - start < size:
            parts = _cut(parts, start - cluster, end - cluster)
        yield start, end - start, parts, table.host(index) + start - cluster
        at += layout.SUBCLUSTERS
        index += 1


def _parts(kinds: bytes, has_offset: bool, unit: int, translation: tuple[int, ...]) -> Parts:
    """The parts of a whole cluster whose subclusters, of unit bytes each, have these kinds."""
    of_all = HAS_OFFSET if has_offset else 0
    return tuple(
        ((after - first) * unit, translation[_FLAGS[kind] | of_all]) for kind, first, after in runs_of_kinds(kinds)
    )


def _cut(parts: Parts, first: int, end: int) -> Parts:
    """The bytes [first, end) of the parts."""
    cut, at = [], 0
    for length, flags in parts:
        low, high = max(at, first), min(at + length, end)
        if low < high:
            cut.append((high - low, flags))
        at += length
    return cut
