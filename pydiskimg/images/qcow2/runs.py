# SPDX-License-Identifier: MIT
"""Runs: consecutive bytes of the guest that are stored in the same way."""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HOLE, ZERO, DATA, COMPRESSED, MIXED = b"HZDCM"

BITMAP = 4  # bytes: a bit for each of 32 subclusters

# Subclusters are expanded, a byte for each, for that many clusters at a time.
UNFOLDED = 1024
# By kind, 1 for each other kind.
_OTHERS = {kind: b"\1" * kind + b"\0" + b"\1" * (255 - kind) for kind in (HOLE, ZERO, DATA, COMPRESSED, MIXED)}


def runs_of_kinds(kinds: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (kind, first, after) of the runs in kinds, one byte each; MIXED ones of at most UNFOLDED."""
    where_others: dict[int, bytes] = {}  # by kind, a byte for each of kinds: 1 if it is another kind
    first, end = 0, len(kinds)
    while first < end:
        kind = kinds[first]
        if first + 1 == end or kinds[first + 1] != kind:
            yield kind, first, first + 1
            first += 1
            continue
        others = where_others.get(kind)
        if others is None:
            others = where_others[kind] = kinds.translate(_OTHERS[kind])
        after = others.find(1, first)
        if after < 0:
            after = end
        if kind == MIXED:
            after = min(after, first + UNFOLDED)
        yield kind, first, after
        first = after


class Run:
    """Bytes [start, start + length) of the guest that are stored contiguously.

    kind is HOLE, ZERO, DATA or COMPRESSED. host is the offset of the first byte (DATA) in the file, or in the
    external data file of an image that has one; or that of the compressed data of the run's only cluster (COMPRESSED),
    which has at most host_length bytes.
    """

    # Written by hand: a frozen dataclass takes three times as long to make, and importing its module as long as all of
    # this.
    __slots__ = ("host", "host_length", "kind", "length", "start")

    def __init__(self, kind: int, start: int, length: int, host: int = 0, host_length: int = 0) -> None:
        self.kind = kind
        self.start = start
        self.length = length
        self.host = host
        self.host_length = host_length

    def __repr__(self) -> str:
        return f"Run({self.kind}, {self.start}, {self.length}, {self.host}, {self.host_length})"


class MixedRun(Run):
    """Clusters with mixed subclusters, with few others between them, wherever each is stored: kind is MIXED.

    hosts has the host offset of each cluster, from the one with the first byte on. stored and zero are their bitmaps,
    BITMAP bytes for each cluster, the lowest bit of the first byte being the first subcluster's.
    """

    __slots__ = ("hosts", "stored", "zero")

    def __init__(self, start: int, length: int, hosts: list[int], stored: bytes, zero: bytes) -> None:
        super().__init__(MIXED, start, length)
        self.hosts = hosts
        self.stored = stored
        self.zero = zero

    def between(self, start: int, end: int, cluster_size: int) -> MixedRun:
        """The part [start, end) of this run."""
        first = self.start // cluster_size
        index, after = start // cluster_size - first, -(-end // cluster_size) - first
        some = slice(BITMAP * index, BITMAP * after)
        return MixedRun(start, end - start, self.hosts[index:after], self.stored[some], self.zero[some])
