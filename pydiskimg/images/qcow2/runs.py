# SPDX-License-Identifier: MIT
"""Runs: bytes of the guest that are found in one way, in a row."""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HOLE, ZERO, DATA, COMPRESSED, MIXED = b"HZDCM"

# Subclusters are unfolded, a byte for each, of so many clusters at a time.
UNFOLDED = 1024
# By kind, 1 for each other kind.
_OTHERS = {kind: b"\1" * kind + b"\0" + b"\1" * (255 - kind) for kind in (HOLE, ZERO, DATA, COMPRESSED, MIXED)}


def runs_of_kinds(kinds: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (kind, first, after) of the runs that kinds, one byte each, consists of; MIXED ones of at most UNFOLDED."""
    where_others: dict[int, bytes] = {}  # by kind, a byte for each of kinds: 1 where it is another one
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
    """Bytes [start, start + length) of the guest that are found in one place.

    kind is HOLE, ZERO, DATA or COMPRESSED. host is the offset of the first byte (DATA) in the file, or in the
    external data file of an image that has one; or that of the compressed data of the one cluster the run lies in
    (COMPRESSED), which has host_length bytes at most.

    coarse_runs() has MIXED as well, for clusters that follow each other in the file, host being the place of the first
    byte: subclusters is a byte of kind for each of their subclusters, from the one that holds the first byte on.
    """

    # By hand: a frozen dataclass takes three times as long to make, and its module as long to import as all of this.
    __slots__ = ("host", "host_length", "kind", "length", "start", "subclusters")

    def __init__(
        self, kind: int, start: int, length: int, host: int = 0, host_length: int = 0, subclusters: bytes = b""
    ) -> None:
        self.kind = kind
        self.start = start
        self.length = length
        self.host = host
        self.host_length = host_length
        self.subclusters = subclusters

    def __repr__(self) -> str:
        return f"Run({self.kind}, {self.start}, {self.length}, {self.host}, {self.host_length})"
