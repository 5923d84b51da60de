# SPDX-License-Identifier: MIT
"""From the entries of an L2 table to runs; clusters whose subclusters differ are one run, or split."""

from __future__ import annotations

from pydiskimg.images.qcow2.l2_tables import SAME_KIND
from pydiskimg.images.qcow2.runs import COMPRESSED, DATA, HOLE, MIXED, ZERO, Run
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
    index, end_index = inside // cluster_size, last // cluster_size + 1
    while index < end_index:
        kind = table.kinds[index]
        after = _end_of_run(table, index, end_index, cluster_size)
        skip = offset % cluster_size
        length = min((after - index) * cluster_size - skip, stop - offset)
        if kind == DATA:
            yield Run(kind, offset, length, table.host(index) + skip)
        elif kind == COMPRESSED:
            yield Run(kind, offset, length, *header.compressed_at(table.entry(index)))
        elif kind == MIXED:
            unit = header.subcluster_size
            kinds = table.subclusters(index, after)[skip // unit : -(-(skip + length) // unit)]
            yield Run(kind, offset, length, table.host(index) + skip, subclusters=kinds)
        else:
            yield Run(kind, offset, length)
        offset += length
        index = after


def _end_of_run(table: L2Table, index: int, end_index: int, cluster_size: int) -> int:
    """The first index after index whose cluster does not continue it, for DATA and MIXED in the file as well."""
    kind = table.kinds[index]
    if kind == COMPRESSED:
        return index + 1
    same = SAME_KIND.match(table.kinds, index, end_index)
    end = same.end() if same else index + 1
    return end if kind in (HOLE, ZERO) else table.end_of_neighbours(index, end, cluster_size)


def split(run: Run, unit: int) -> Iterator[Run]:
    """Yield the runs, each of one kind, that a MIXED one consists of; unit is the bytes of a subcluster."""
    first, stop = run.start - run.start % unit, run.start + run.length
    for found in SAME_KIND.finditer(run.subclusters):
        index, after = found.span()
        start, end = max(first + index * unit, run.start), min(first + after * unit, stop)
        if start < end:
            kind = run.subclusters[index]
            yield Run(kind, start, end - start, run.host + start - run.start if kind == DATA else 0)
