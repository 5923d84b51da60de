# SPDX-License-Identifier: MIT
"""Which clusters of an image hold its own tables: no guest's data is written there, whatever an entry says."""

from __future__ import annotations

# A bit each: 64 MiB at most, and only where an image has a table so far back (32 TiB for clusters of 64 KiB).
MOST_CLUSTERS = 1 << 29


class MetadataClusters:
    """A set of clusters, as a bit for each. Clusters from MOST_CLUSTERS on are not remembered."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, cluster: int, count: int = 1) -> None:
        """Remember count clusters."""
        end = min(cluster + count, MOST_CLUSTERS)
        if end >> 3 >= len(self._bits) and end > cluster:
            self._bits.extend(bytes((end >> 3) + 1 - len(self._bits)))
        for each in range(cluster, end):
            self._bits[each >> 3] |= 1 << (each & 7)

    def discard(self, cluster: int, count: int = 1) -> None:
        """Forget count clusters."""
        for each in range(cluster, min(cluster + count, len(self._bits) << 3)):
            self._bits[each >> 3] &= ~(1 << (each & 7))

    def first_of(self, cluster: int, count: int) -> int | None:
        """The first of these count clusters that is remembered."""
        if not any(self._bits[cluster >> 3 : (cluster + count + 7) >> 3]):
            return None
        for each in range(cluster, min(cluster + count, len(self._bits) << 3)):
            if self._bits[each >> 3] >> (each & 7) & 1:
                return each
        return None
