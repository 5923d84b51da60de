# SPDX-License-Identifier: MIT
"""Runs of bytes of one kind, and the one way to join them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a run of bytes holds.

    DATA is stored and must be read. ZERO is stored as zero: it reads as zero whatever lies behind.
    HOLE is not stored: it reads as zero, or as the backing file where there is one.
    """

    DATA = "data"
    ZERO = "zero"
    HOLE = "hole"


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes of one kind.

        0          64K               192K      256K = source.size
        |   DATA    |      HOLE       |  ZERO   |

    start and length are bytes; length > 0. extents() of a Source covers it from 0 to size in this way,
    without gaps, overlaps, empty extents or two neighbours of one kind.
    """

    start: int
    length: int
    kind: Kind

    @property
    def end(self) -> int:
        """The first byte after the extent."""
        return self.start + self.length


def merged(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours of one kind and drop empty extents.

    The input must be ascending and without gaps; only one extent is held at a time.
    """
    current: Extent | None = None
    for extent in extents:
        if not extent.length:
            continue
        if current is not None and current.kind is extent.kind:
            current = Extent(current.start, current.length + extent.length, current.kind)
            continue
        if current is not None:
            yield current
        current = extent
    if current is not None:
        yield current
