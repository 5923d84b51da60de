# SPDX-License-Identifier: MIT
"""From the entries of an L2 table to runs; clusters whose subclusters differ are one run, or split."""

from __future__ import annotations

from pydiskimg.images.qcow2.runs import COMPRESSED, DATA, HOLE, MIXED, ZERO, Run, runs_of_kinds
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.l2_tables import L2Table


def runs_in_table(table: L2Table, header: Header, offset: int, inside: int, stop: int) -> Iterator[Run]:
    """Yield the runs of [offset, stop) of the virtual disk, whose clusters the table maps; some may be MIXED.

    inside is the distance of offset from the start of what the table maps.
    """
    cluster_size = header.cluster_size
    last = inside + (stop - offset) - 1
    begin = inside // cluster_size
    for kind, first, after in runs_of_kinds(table.kinds[begin : last // cluster_size + 1]):
        index, end = begin + first, begin + after
        while index < end:
            following = _end_of_neighbours(table, kind, index, end, cluster_size)
            skip = offset % cluster_size
            length = min((following - index) * cluster_size - skip, stop - offset)
            yield _run(table, header, kind, index, following, offset, length)
            offset += length
            index = following


def _end_of_neighbours(table: L2Table, kind: int, index: int, end: int, cluster_size: int) -> int:
    """The first index after index, at most end, whose cluster of the same kind does not continue it in the file."""
    if kind in (HOLE, ZERO):
        return end
    return index + 1 if kind == COMPRESSED else table.end_of_neighbours(index, end, cluster_size)


def _run(table: L2Table, header: Header, kind: int, index: int, after: int, offset: int, length: int) -> Run:
    """The run of entries from index to after, which begins at offset of the virtual disk, inside of the first one."""
    skip = offset % header.cluster_size
    if kind == DATA:
        return Run(kind, offset, length, table.host(index) + skip)
    if kind == COMPRESSED:
        return Run(kind, offset, length, *header.compressed_at(table.entry(index)))
    if kind == MIXED:
        unit = header.subcluster_size
        kinds = table.subclusters(index, after)[skip // unit : -(-(skip + length) // unit)]
        return Run(kind, offset, length, table.host(index) + skip, subclusters=kinds)
    return Run(kind, offset, length)


def split(run: Run, unit: int) -> Iterator[Run]:
    """Yield the runs, each of one kind, that a MIXED one consists of; unit is the bytes of a subcluster."""
    first, stop = run.start - run.start % unit, run.start + run.length
    for kind, index, after in runs_of_kinds(run.subclusters):
        start, end = max(first + index * unit, run.start), min(first + after * unit, stop)
        if start < end:
            yield Run(kind, start, end - start, run.host + start - run.start if kind == DATA else 0)
