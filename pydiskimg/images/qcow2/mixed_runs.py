# SPDX-License-Identifier: MIT
"""Runs of clusters with mixed subclusters: made from the entries of an L2 table, and split."""

from __future__ import annotations

import re

from pydiskimg.images.qcow2.extended_entries import unfolded
from pydiskimg.images.qcow2.layout import SUBCLUSTERS
from pydiskimg.images.qcow2.runs import BITMAP, DATA, MixedRun, Run, runs_of_kinds
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# A few other clusters between clusters with mixed subclusters are included: one by one each would be a step.
_RUNS = re.compile(b"M(?:[DHZ]{0,7}M)*|H+|Z+|D+|C+")
_GROUPS = re.compile(rb"M(?:[HZDC]{0,7}M){0,31}|[HZDC]+")  # long enough that a step has enough work


def runs_with_mixed(kinds: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (kind, first, after) as runs_of_kinds() does, but MIXED runs include others between them."""
    for found in _RUNS.finditer(kinds):
        yield kinds[found.start()], found.start(), found.end()


def groups_with_mixed(kinds: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (index, after) of clusters from start to end that are one step; others may be between MIXED ones."""
    for found in _GROUPS.finditer(kinds, start, end):
        yield found.span()


def split(run: MixedRun, unit: int) -> Iterator[Run]:
    """Yield the parts of a mixed run, each of one kind; unit is the bytes of a subcluster."""
    size, stop = unit * SUBCLUSTERS, run.start + run.length
    first = run.start - run.start % size
    for index, after in _neighbours(run.hosts, size):
        begin, some = first + index * size, slice(BITMAP * index, BITMAP * after)
        kinds = unfolded(run.stored[some], run.zero[some])
        for kind, first_of_kind, after_kind in runs_of_kinds(kinds):
            start = max(begin + first_of_kind * unit, run.start)
            end = min(begin + after_kind * unit, stop)
            if start < end:
                yield Run(kind, start, end - start, run.hosts[index] + start - begin if kind == DATA else 0)


def _neighbours(hosts: list[int], cluster_size: int) -> Iterator[tuple[int, int]]:
    """(index, after) of the clusters that are contiguous in the file."""
    index = 0
    for after in range(1, len(hosts) + 1):
        if after == len(hosts) or hosts[after] != hosts[after - 1] + cluster_size:
            yield index, after
            index = after
