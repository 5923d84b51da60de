# SPDX-License-Identifier: MIT
"""Where one layer of a qcow2 image keeps the guest's bytes, also those that read as zero and yet have an offset."""

from __future__ import annotations

from collections.abc import Iterator

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.l2_tables import SAME_KIND, L2Table
from pydiskimg.images.qcow2.mapping import Mapping
from pydiskimg.images.qcow2.runs import COMPRESSED, DATA, HOLE, MIXED, ZERO

# What is known about a piece; several of them at once. HOLE is none of the first three.
IS_ZERO, IS_DATA, IS_COMPRESSED, HAS_OFFSET = 1, 2, 4, 8

Piece = tuple[int, int, int, int]
"""start, length, flags, and the host offset of the first byte (with HAS_OFFSET)."""

_FLAGS = {HOLE: 0, ZERO: IS_ZERO, DATA: IS_DATA, COMPRESSED: IS_DATA | IS_COMPRESSED}
_WITH_OFFSET = {kind: flags | HAS_OFFSET for kind, flags in _FLAGS.items()}
_LOCATED_DATA = IS_DATA | HAS_OFFSET


def host_ranges(mapping: Mapping, offset: int, length: int) -> Iterator[Piece]:
    """Yield the pieces of [offset, offset + length), in order; neighbours may be alike. Errors as of Mapping.runs()."""
    for start, end, table in mapping.tables(offset, length):
        if table is None:
            yield start, end - start, 0, 0
        else:
            yield from _in_table(mapping, table, start, end)


def _in_table(mapping: Mapping, table: L2Table, start: int, end: int) -> Iterator[Piece]:
    header = mapping.header
    bits, first, extended = header.cluster_bits, start - start % header.l2_span, header.extended_l2
    last_index = (end - 1 - first >> bits) + 1
    position = start
    for found in SAME_KIND.finditer(table.kinds, start - first >> bits, last_index):
        index, after = found.span()
        kind, stop = table.kinds[index], min(first + (after << bits), end)
        if kind == MIXED:
            yield from _in_clusters(mapping, table, index, position, stop)
        elif kind == DATA and after == index + 1:
            yield position, stop - position, _LOCATED_DATA, table.host(index) + position - first - (index << bits)
        elif kind == DATA or ((kind == ZERO or (kind == HOLE and extended)) and _have_offsets(table, index, after)):
            yield from _with_offsets(mapping, table, index, position, stop)
        else:
            yield position, stop - position, _FLAGS[kind], 0
        position = stop


def _have_offsets(table: L2Table, index: int, after: int) -> bool:
    """True when one of these clusters, read as zero or from the backing file, has a host offset nevertheless."""
    highest = max(table.words[index * table.step : after * table.step : table.step])
    return highest > layout.L2_ZERO


def _with_offsets(mapping: Mapping, table: L2Table, index: int, position: int, stop: int) -> Iterator[Piece]:
    """The pieces of clusters of one kind that have, or may have, a host offset: split where these do not adjoin."""
    size = mapping.header.cluster_size
    flags = _FLAGS[table.kinds[index]]
    inside = position % size
    while position < stop:
        piece_end = min(position - inside + size, stop)
        if _has_offset(mapping, table, index):
            yield position, piece_end - position, flags | HAS_OFFSET, table.host(index) + inside
        else:
            yield position, piece_end - position, flags, 0
        position, inside, index = piece_end, 0, index + 1


def _has_offset(mapping: Mapping, table: L2Table, index: int) -> bool:
    if table.host(index):
        return True
    # In an external data file the offset may be 0: then the copied bit tells, for clusters that can hold data.
    can_hold_data = table.kinds[index] == DATA or mapping.header.extended_l2
    return mapping.header.has_data_file and can_hold_data and bool(table.entry(index) & layout.COPIED)


def _in_clusters(mapping: Mapping, table: L2Table, index: int, position: int, stop: int) -> Iterator[Piece]:
    """The pieces of clusters whose subclusters differ."""
    size, unit = mapping.header.cluster_size, mapping.header.subcluster_size
    begin = position - position % size
    kinds = table.subclusters(index, index + -(-(stop - begin) // size))
    # The first piece may begin inside a subcluster, and the last one end there.
    first, inside = divmod(position - begin, unit)
    for number, cluster in enumerate(range(begin, stop, size)):
        flags_of = _WITH_OFFSET if _has_offset(mapping, table, index + number) else _FLAGS
        host = table.host(index + number) + position - cluster
        after = (number + 1) * layout.SUBCLUSTERS
        for run in SAME_KIND.findall(kinds, first, after):
            length = len(run) * unit - inside
            if position + length >= stop:
                yield position, stop - position, flags_of[run[0]], host
                return
            yield position, length, flags_of[run[0]], host
            position += length
            host += length
            inside = 0
        first = after
