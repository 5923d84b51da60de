# SPDX-License-Identifier: MIT
"""Turn the entries of an L2 table into runs; clusters with mixed subclusters are runs of their own kind."""

from __future__ import annotations

from pydiskimg.images.qcow2.runs import COMPRESSED, DATA, HOLE, MIXED, ZERO, MixedRun, Run, runs_of_kinds
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
    begin, last = inside // cluster_size, inside + (stop - offset) - 1
    for index, after in _same_in_table(table, begin, last // cluster_size + 1, cluster_size):
        length = min((after - index) * cluster_size - offset % cluster_size, stop - offset)
        yield _run(table, header, index, after, offset, length)
        offset += length


def _same_in_table(table: L2Table, begin: int, end: int, cluster_size: int) -> Iterator[tuple[int, int]]:
    """Yield (index, after) of the entries from begin to end that make a run."""
    kinds = table.kinds[begin:end]
    if MIXED in kinds:
        from pydiskimg.images.qcow2.mixed_runs import runs_with_mixed  # imported here: few images have subclusters

        found = runs_with_mixed(kinds)
    else:
        found = runs_of_kinds(kinds)
    for kind, first, after in found:
        index = begin + first
        while index < begin + after:
            following = _end_of_neighbours(table, kind, index, begin + after, cluster_size)
            yield index, following
            index = following


def _end_of_neighbours(table: L2Table, kind: int, index: int, end: int, cluster_size: int) -> int:
    """The first index after index, at most end, whose cluster of the same kind does not continue it in the file."""
    if kind in (HOLE, ZERO, MIXED):
        return end
    return index + 1 if kind == COMPRESSED else table.end_of_neighbours(index, end, cluster_size)


def _run(table: L2Table, header: Header, index: int, after: int, offset: int, length: int) -> Run:
    """The run of entries from index to after, which begins at offset of the virtual disk, inside of the first one."""
    kind = table.kinds[index]
    if kind == DATA:
        return Run(kind, offset, length, table.host(index) + offset % header.cluster_size)
    if kind == COMPRESSED:
        return Run(kind, offset, length, *header.compressed_at(table.entry(index)))
    if kind == MIXED:
        return MixedRun(offset, length, table.hosts(index, after), *table.bitmaps(index, after))
    return Run(kind, offset, length)
