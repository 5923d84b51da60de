# SPDX-License-Identifier: MIT
"""Clusters for parts of the virtual disk that nothing was written to yet, as zeros."""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import MIB

if TYPE_CHECKING:
    from pydiskimg.images.qcow2.write.l2_map import GuestMap
    from pydiskimg.images.qcow2.write.refcounts import Refcounts
    from pydiskimg.protocols import Store


def preallocate_clusters(
    store: Store, guest_map: GuestMap, refcounts: Refcounts, cluster: int, count: int, *, full: bool
) -> None:
    """Give those of count guest clusters, all in one L2 table, that have no host offset new ones.

    They read as zero, or as before where they have subclusters. They lie at the end of the file, which reads as zero
    there without being written; full writes the zeros. The caller holds the lock.
    """
    cluster_size, words = guest_map.cluster_size, guest_map.words
    entries = guest_map.entries(cluster, count) or words.unmapped(count)
    index = 0
    while index < count:
        end = index
        while end < count and not words.has_place(entries[end * words.step]):
            end += 1
        while index < end:
            if guest_map.is_crowded:
                guest_map.commit()
            first, some = refcounts.allocate_at_end(end - index)
            _write_zeros(store, first * cluster_size, some * cluster_size, full=full)
            old = entries[index * words.step : (index + some) * words.step]
            guest_map.put(cluster + index, words.preallocated(first, old))
            index += some
        index = end + 1


def _write_zeros(store: Store, offset: int, length: int, *, full: bool) -> None:
    """Write zeros where the file has bytes already; full writes all of them."""
    end = offset + length if full else min(offset + length, store.size)
    zeros = memoryview(bytes(min(MIB, max(0, end - offset))))
    while offset < end:
        some = min(MIB, end - offset)
        store.write(offset, zeros[:some])
        offset += some
