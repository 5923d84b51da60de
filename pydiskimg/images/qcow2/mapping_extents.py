# SPDX-License-Identifier: MIT
"""The extents of a virtual disk, from its L1 and L2 tables."""

from __future__ import annotations

from pydiskimg.extents import Extent, Kind
from pydiskimg.images.qcow2.runs import COMPRESSED, DATA, HOLE, MIXED, ZERO, runs_of_kinds
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.images.qcow2.l2_tables import L2Table
    from pydiskimg.images.qcow2.mapping import Mapping
    from pydiskimg.protocols import KindColumn

_EXTENT_KINDS = {HOLE: Kind.HOLE, ZERO: Kind.ZERO, DATA: Kind.DATA}
_COMPRESSED_AS_DATA = bytes.maketrans(bytes((COMPRESSED,)), bytes((DATA,)))
_MIXED_OR_NOT = bytes(MIXED if kind == MIXED else HOLE for kind in range(256))


def mapping_extents(mapping: Mapping, unit: int) -> Iterator[Extent]:
    """Yield the extents as Mapping.extents() does."""
    start, current = 0, Kind.HOLE
    for first, step, kinds in _kinds(mapping, unit):
        for code, at, _ in runs_of_kinds(kinds.translate(_COMPRESSED_AS_DATA)):
            kind = _EXTENT_KINDS[code]
            if kind is not current:
                position = first + at * step
                if position > start:
                    yield Extent(start, position - start, current)
                start, current = position, kind
    if mapping.size > start:
        yield Extent(start, mapping.size - start, current)


def mapping_columns(mapping: Mapping) -> Iterator[KindColumn]:
    """Yield the kinds of the extents as Source.kind_columns() has them."""
    for start, step, kinds in _kinds(mapping, 1):
        yield start, step, min(start + step * len(kinds), mapping.size), kinds.translate(_COMPRESSED_AS_DATA)


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
        for kind, at, after in runs_of_kinds(table.kinds[:clusters].translate(_MIXED_OR_NOT)):
            start = first + at * cluster_size
            if kind == MIXED:
                step, kinds = _mixed_kinds(mapping, table, at, after, unit)
                yield start, step, kinds[: -(-(size - start) // step)]
            else:
                yield start, cluster_size, table.kinds[at:after]
    if size > position:
        yield position, size - position, b"H"


def _mixed_kinds(mapping: Mapping, table: L2Table, index: int, after: int, unit: int) -> tuple[int, bytes]:
    """(step, kinds) of clusters with mixed subclusters."""
    from pydiskimg.images.qcow2.subclusters import coarse  # imported here: few images have subclusters

    step = mapping.header.subcluster_size
    kinds = table.subclusters(index, after)
    count = min(unit, mapping.header.cluster_size) // step
    return (count * step, coarse(kinds, count)) if count > 1 else (step, kinds)
