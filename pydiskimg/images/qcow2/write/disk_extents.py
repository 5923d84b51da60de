# SPDX-License-Identifier: MIT
"""The extents of an image that is being written."""

from __future__ import annotations

from pydiskimg.extents import Extent, Kind, merged
from pydiskimg.images.qcow2.runs import HOLE, ZERO, MixedRun
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Iterator

    from pydiskimg.images.qcow2.runs import Run
    from pydiskimg.images.qcow2.write.l2_map import GuestMap


def disk_extents(
    guest_map: GuestMap, lock: LockType, *, size: int, subcluster_size: int, backing_size: int
) -> Iterator[Extent]:
    """Yield the extents of a disk of size bytes; unallocated parts are DATA up to backing_size, and a HOLE beyond.

    lock guards guest_map.
    """
    return merged(_parts(guest_map, lock, size, subcluster_size, backing_size))


def _parts(guest_map: GuestMap, lock: LockType, size: int, subcluster_size: int, backing_size: int) -> Iterator[Extent]:
    span = guest_map.entries_per_table * guest_map.cluster_size
    for start in range(0, size, span):
        end = min(size, start + span)
        cluster = start // guest_map.cluster_size
        with lock:
            entries = guest_map.entries(cluster, -(-(end - start) // guest_map.cluster_size))
        for coarse in guest_map.runs(cluster, entries, start, end):
            for run in _split(coarse, subcluster_size) if isinstance(coarse, MixedRun) else (coarse,):
                yield from _of_run(run, backing_size)


def _split(run: MixedRun, subcluster_size: int) -> Iterator[Run]:
    from pydiskimg.images.qcow2.mixed_runs import split  # imported here: few images have subclusters

    return split(run, subcluster_size)


def _of_run(run: Run, backing_size: int) -> Iterator[Extent]:
    if run.kind != HOLE:
        yield Extent(run.start, run.length, Kind.ZERO if run.kind == ZERO else Kind.DATA)
        return
    end = run.start + run.length
    behind = min(end, max(run.start, backing_size))
    yield Extent(run.start, behind - run.start, Kind.DATA)
    yield Extent(behind, end - behind, Kind.HOLE)
