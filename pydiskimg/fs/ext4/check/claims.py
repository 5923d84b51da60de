# SPDX-License-Identifier: MIT
"""The clusters in use, found by following all references to blocks: a bit for each cluster."""

from __future__ import annotations

from pydiskimg.fs.ext4.geometry import Geometry


class Claims:
    """The bits of the claimed clusters, by group; a group without any takes no memory."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self.groups: dict[int, int] = {}

    def claim(self, start: int, end: int) -> int | None:
        """Claim the clusters of the blocks [start, end); return the first block that was already claimed."""
        geometry, ratio = self._geometry, self._geometry.cluster_blocks
        claimed = None
        while start < end:
            group = geometry.group_of(start)
            first, stop = geometry.group_start(group), min(end, geometry.group_end(group))
            low, high = (start - first) // ratio, -(-(stop - first) // ratio)
            bits, known = (1 << high) - (1 << low), self.groups.get(group, 0)
            if claimed is None and known & bits:
                both = known & bits
                claimed = first + ((both & -both).bit_length() - 1) * ratio
            self.groups[group] = known | bits
            start = stop
        return claimed
