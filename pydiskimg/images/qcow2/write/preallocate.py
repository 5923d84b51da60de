# SPDX-License-Identifier: MIT
"""Allocate clusters, as zeros, for unwritten parts of the virtual disk."""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from pydiskimg.images.qcow2.write.data_file import DataFile
    from pydiskimg.images.qcow2.write.l2_map import GuestMap
    from pydiskimg.images.qcow2.write.refcounts import Refcounts
    from pydiskimg.protocols import Store

    Allocate: TypeAlias = Callable[[int, int], tuple[int, int]]


def preallocate_clusters(guest_map: GuestMap, cluster: int, count: int, allocate: Allocate) -> None:
    """Give new host clusters to those of count guest clusters, all in one L2 table, that have none.

    They read as zero, or as before if they have subclusters. allocate(cluster, most) returns (first, number) of zeroed
    host clusters, 1 to most, for the guest clusters from cluster on. The caller holds the lock.
    """
    words = guest_map.words
    entries = guest_map.entries(cluster, count) or words.unmapped(count)
    index = 0
    while index < count:
        end = index
        while end < count and not words.has_host_offset(entries[end * words.step]):
            end += 1
        while index < end:
            if guest_map.is_crowded:
                guest_map.commit()
            first, some = allocate(cluster + index, end - index)
            old = entries[index * words.step : (index + some) * words.step]
            guest_map.put(cluster + index, words.preallocated(first, old))
            index += some
        index = end + 1


def at_end_of(store: Store, refcounts: Refcounts, cluster_size: int, *, full: bool) -> Allocate:
    """Allocate clusters at the end of the file, where unwritten bytes read as zero; full writes the zeros."""

    def allocate(_: int, most: int) -> tuple[int, int]:
        first, count = refcounts.allocate_at_end(most)
        start, end = first * cluster_size, (first + count) * cluster_size
        for at, zeros in _zeros(start, end if full else min(end, store.size)):
            store.write(at, zeros)
        return first, count

    return allocate


def inside(data_file: DataFile, size: int, cluster_size: int, *, full: bool) -> Allocate:
    """Allocate clusters in the data file of a disk of size bytes, each at its offset on the disk, and zero them."""

    def allocate(cluster: int, most: int) -> tuple[int, int]:
        start, end = cluster * cluster_size, min(size, (cluster + most) * cluster_size)
        if not full:
            data_file.zero(start, end - start)
        for at, zeros in _zeros(start, end if full else start):
            data_file.write(at, zeros)
        return cluster, most

    return allocate


def _zeros(start: int, end: int) -> Iterator[tuple[int, memoryview]]:
    zeros = memoryview(bytes(min(MIB, max(0, end - start))))
    while start < end:
        some = min(MIB, end - start)
        yield start, zeros[:some]
        start += some
