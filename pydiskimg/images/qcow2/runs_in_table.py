# SPDX-License-Identifier: MIT
"""From the entries of an L2 table to runs; clusters whose subclusters differ are one run, or split."""

from __future__ import annotations

import re

from pydiskimg.images.qcow2.l2_tables import SAME_KIND, unfolded
from pydiskimg.images.qcow2.layout import SUBCLUSTERS
from pydiskimg.images.qcow2.runs import BITMAP, COMPRESSED, DATA, MIXED, MixedRun, Run
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.l2_tables import L2Table

# Between clusters whose subclusters differ a few others are taken along: one by one each would be a step.
_MIXED = re.compile(b"M(?:[DHZ]{0,7}M)*")


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
            yield MixedRun(offset, length, table.hosts(index, after), *table.bitmaps(index, after))
        else:
            yield Run(kind, offset, length)
        offset += length
        index = after


def _end_of_run(table: L2Table, index: int, end_index: int, cluster_size: int) -> int:
    """The first index after index whose cluster does not continue it, for DATA in the file as well."""
    kind = table.kinds[index]
    if kind == COMPRESSED:
        return index + 1
    same = (_MIXED if kind == MIXED else SAME_KIND).match(table.kinds, index, end_index)
    end = same.end() if same else index + 1
    return table.end_of_neighbours(index, end, cluster_size) if kind == DATA else end


def split(run: MixedRun, unit: int) -> Iterator[Run]:
    """Yield the runs, each of one kind, that a mixed one consists of; unit is the bytes of a subcluster."""
    size, stop = unit * SUBCLUSTERS, run.start + run.length
    first = run.start - run.start % size
    for index, after in _neighbours(run.hosts, size):
        begin, some = first + index * size, slice(BITMAP * index, BITMAP * after)
        kinds = unfolded(run.stored[some], run.zero[some])
        for found in SAME_KIND.finditer(kinds):
            start = max(begin + found.start() * unit, run.start)
            end = min(begin + found.end() * unit, stop)
            if start < end:
                kind = kinds[found.start()]
                yield Run(kind, start, end - start, run.hosts[index] + start - begin if kind == DATA else 0)


def _neighbours(hosts: list[int], cluster_size: int) -> Iterator[tuple[int, int]]:
    """(index, after) of the clusters that follow each other in the file."""
    index = 0
    for after in range(1, len(hosts) + 1):
        if after == len(hosts) or hosts[after] != hosts[after - 1] + cluster_size:
            yield index, after
            index = after
