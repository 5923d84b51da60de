# SPDX-License-Identifier: MIT
"""The extents of a virtual disk, as its L1 and L2 tables have them."""

from __future__ import annotations

import re

from pydiskimg.extents import Extent, Kind
from pydiskimg.images.qcow2.runs import COMPRESSED, DATA, HOLE, MIXED, UNFOLDED, ZERO
from pydiskimg.images.qcow2.subclusters import coarse
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.images.qcow2.l2_tables import L2Table
    from pydiskimg.images.qcow2.mapping import Mapping

_EXTENT_KINDS = {HOLE: Kind.HOLE, ZERO: Kind.ZERO, DATA: Kind.DATA, COMPRESSED: Kind.DATA}
_GROUPS = re.compile(b"[HZDC]+|M{1,%d}" % UNFOLDED)
_EXTENTS = re.compile(b"H+|Z+|[DC]+")


def mapping_extents(mapping: Mapping, unit: int) -> Iterator[Extent]:
    """Yield the extents as Mapping.extents() does."""
    start, current = 0, Kind.HOLE
    for first, step, kinds in _kinds(mapping, unit):
        position = first
        for run in _EXTENTS.findall(kinds):
            kind = _EXTENT_KINDS[run[0]]
            if kind is not current:
                if position > start:
                    yield Extent(start, position - start, current)
                start, current = position, kind
            position += len(run) * step
    if mapping.size > start:
        yield Extent(start, mapping.size - start, current)


def _kinds(mapping: Mapping, unit: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield (position, step, kinds): one kind for each step bytes from position on, none beyond the end."""
    header, size = mapping.header, mapping.size
    span, cluster_size = header.l2_span, header.cluster_size
    position = 0
    for index in mapping.used_l1_indices():
        table = mapping.table(index)
        if table is None:
            continue
        first = index * span
        if first > position:
            yield position, first - position, b"H"
        position = min(first + span, size)
        clusters = -(-(position - first) // cluster_size)
        for found in _GROUPS.finditer(table.kinds, 0, clusters):
            at, after = found.span()
            start = first + at * cluster_size
            if table.kinds[at] == MIXED:
                step, kinds = _mixed_kinds(mapping, table, at, after, unit)
                yield start, step, kinds[: -(-(size - start) // step)]
            else:
                yield start, cluster_size, found.group()
    if size > position:
        yield position, size - position, b"H"


def _mixed_kinds(mapping: Mapping, table: L2Table, index: int, after: int, unit: int) -> tuple[int, bytes]:
    """(step, kinds) of clusters whose subclusters differ."""
    step = mapping.header.subcluster_size
    kinds = table.subclusters(index, after)
    count = min(unit, mapping.header.cluster_size) // step
    return (count * step, coarse(kinds, count)) if count > 1 else (step, kinds)
