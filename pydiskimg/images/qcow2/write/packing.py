# SPDX-License-Identifier: MIT
"""Compressed clusters are stored one after the other, byte by byte, across borders of host clusters.

    host clusters   |    1     |    2     |    3     |
    compressed      |aaaaabbbbb|bccddddddd|d.........      counts 2, 3, 1: how many touch each

A host cluster is counted once for each compressed cluster that touches it.
"""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydiskimg.images.qcow2.write.refcounts import Refcounts


class Packing:
    """The location of the next compressed cluster. Its caller holds the lock."""

    def __init__(self, refcounts: Refcounts, cluster_size: int) -> None:
        self._refcounts = refcounts
        self._cluster_size = cluster_size
        self._position = self._limit = 0  # the clusters from position to limit belong to the packing
        self._touched = 0  # the highest possible count of the cluster that contains position

    def offsets_for(self, lengths: Sequence[int]) -> list[int]:
        """Return an offset in the file for the data of each length, and raise the counts of the clusters that it
        touches.

        A length is from 1 to the cluster size.
        """
        counts: dict[int, int] = {}
        fresh: set[int] = set()
        offsets = []
        left = sum(lengths)
        for length in lengths:
            if self._touched >= self._refcounts.largest:
                self._next_cluster()
            while self._position + length > self._limit:
                self._extend(left, fresh)
            offsets.append(self._position)
            self._touch(length, counts)
            left -= length
        for cluster, count in counts.items():
            self._refcounts.increase(cluster, count - (cluster in fresh))
        for cluster in fresh - counts.keys():
            self._refcounts.release(cluster)
        self._limit = self._round_up(self._position)
        return offsets

    def take_back(self, offset: int, length: int) -> None:
        """Release the counts of place() for data that could not be written."""
        for cluster in self._clusters(offset, length):
            self._refcounts.release(cluster)

    def after_releases(self) -> None:
        """Leave the partly filled cluster when none of it is in use any more: it is free now."""
        if self._position < self._limit and not self._refcounts.get(self._position // self._cluster_size):
            self._position = self._limit = self._touched = 0

    def _extend(self, length: int, fresh: set[int]) -> None:
        """Allocate clusters for length bytes, after the current ones or elsewhere."""
        needed = length - (self._limit - self._position)
        first, count = self._refcounts.allocate(-(-max(needed, 1) // self._cluster_size))
        fresh.update(range(first, first + count))
        if first * self._cluster_size != self._limit:
            self._position, self._touched = first * self._cluster_size, 0
        self._limit = (first + count) * self._cluster_size

    def _next_cluster(self) -> None:
        self._position, self._touched = self._round_up(self._position), 0

    def _touch(self, length: int, counts: dict[int, int]) -> None:
        clusters = self._clusters(self._position, length)
        for cluster in clusters:
            counts[cluster] = counts.get(cluster, 0) + 1
        self._position += length
        inside = self._position % self._cluster_size
        if not inside:
            self._touched = 0
        elif len(clusters) > 1 or self._touched == 0:
            self._touched = 1
        else:
            self._touched += 1

    def _clusters(self, offset: int, length: int) -> range:
        return range(offset // self._cluster_size, (offset + length - 1) // self._cluster_size + 1)

    def _round_up(self, position: int) -> int:
        return -(-position // self._cluster_size) * self._cluster_size


def joined(offsets: Sequence[int], pieces: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Join pieces (offset, data) that are contiguous."""
    start = 0
    for index in range(1, len(offsets) + 1):
        if index == len(offsets) or offsets[index] != offsets[index - 1] + len(pieces[index - 1]):
            yield offsets[start], b"".join(pieces[start:index])
            start = index


def runs_of(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of the runs of consecutive numbers in a sorted list."""
    for at, after in _bounds(numbers):
        yield numbers[at], numbers[after - 1] + 1


def starts_of(numbers: list[int]) -> Iterator[int]:
    """Yield the indices in the list where runs_of() begin."""
    for at, _ in _bounds(numbers):
        yield at


def _bounds(numbers: list[int]) -> Iterator[tuple[int, int]]:
    start = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1:
            yield start, at
            start = at
