# SPDX-License-Identifier: MIT
"""Where one layer of a qcow2 image keeps the guest's bytes, also those that read as zero and yet have a place."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydiskimg.formats.qcow2 import layout
from pydiskimg.formats.qcow2.l2_tables import COMPRESSED, DATA, HOLE, MIXED, ZERO, Table, subcluster_runs
from pydiskimg.formats.qcow2.mapping import Mapping

# What is known about a piece; several of them at once. HOLE is none of the first three.
IS_ZERO, IS_DATA, IS_COMPRESSED, HAS_PLACE = 1, 2, 4, 8

Piece = tuple[int, int, int, int]
"""start, length, flags, and the place of the first byte in the file (with HAS_PLACE)."""

_FLAGS = {HOLE: 0, ZERO: IS_ZERO, DATA: IS_DATA, COMPRESSED: IS_DATA | IS_COMPRESSED}
_PLACED_DATA = IS_DATA | HAS_PLACE
_RUNS = re.compile(b"H+|Z+|D+|C+|M")


def placements(mapping: Mapping, offset: int, length: int) -> Iterator[Piece]:
    """Yield the pieces of [offset, offset + length), in order; neighbours may be alike. Errors as of Mapping.runs()."""
    for start, end, table in mapping.tables(offset, length):
        if table is None:
            yield start, end - start, 0, 0
        else:
            yield from _in_table(mapping, table, start, end)


def _in_table(mapping: Mapping, table: Table, start: int, end: int) -> Iterator[Piece]:
    header = mapping.header
    bits, first, extended = header.cluster_bits, start - start % header.l2_span, header.extended_l2
    last_index = (end - 1 - first >> bits) + 1
    position = start
    for found in _RUNS.finditer(table.kinds, start - first >> bits, last_index):
        index, after = found.span()
        kind, stop = table.kinds[index], min(first + (after << bits), end)
        if kind == MIXED:
            yield from _in_cluster(mapping, table, index, position, stop)
        elif kind == DATA and after == index + 1:
            yield position, stop - position, _PLACED_DATA, table.host(index) + position - first - (index << bits)
        elif kind == DATA or ((kind == ZERO or (kind == HOLE and extended)) and _has_places(table, index, after)):
            yield from _placed(mapping, table, index, position, stop)
        else:
            yield position, stop - position, _FLAGS[kind], 0
        position = stop


def _has_places(table: Table, index: int, after: int) -> bool:
    """True when one of these clusters, which are read as zero or from behind, has a place nevertheless."""
    highest = max(table.words[index * table.step : after * table.step : table.step])
    return highest > layout.L2_ZERO


def _placed(mapping: Mapping, table: Table, index: int, position: int, stop: int) -> Iterator[Piece]:
    """The pieces of clusters of one kind that have, or may have, a place: split where the places do not adjoin."""
    size = mapping.header.cluster_size
    flags = _FLAGS[table.kinds[index]]
    inside = position % size
    while position < stop:
        piece_end = min(position - inside + size, stop)
        if _has_place(mapping, table, index):
            yield position, piece_end - position, flags | HAS_PLACE, table.host(index) + inside
        else:
            yield position, piece_end - position, flags, 0
        position, inside, index = piece_end, 0, index + 1


def _has_place(mapping: Mapping, table: Table, index: int) -> bool:
    if table.host(index):
        return True
    # In an external data file the place may be 0: then the copied bit tells, for clusters that can hold data.
    can_hold_data = table.kinds[index] == DATA or mapping.header.extended_l2
    return mapping.header.has_data_file and can_hold_data and bool(table.entry(index) & layout.COPIED)


def _in_cluster(mapping: Mapping, table: Table, index: int, position: int, stop: int) -> Iterator[Piece]:
    """The pieces of a cluster whose subclusters differ."""
    unit = mapping.header.subcluster_size
    cluster = position - position % mapping.header.cluster_size
    place, has_place = table.host(index), HAS_PLACE if _has_place(mapping, table, index) else 0
    for kind, first, count in subcluster_runs(table.bitmap(index)):
        start = max(cluster + first * unit, position)
        end = min(cluster + (first + count) * unit, stop)
        if start < end:
            yield start, end - start, _FLAGS[kind] | has_place, place + start - cluster
