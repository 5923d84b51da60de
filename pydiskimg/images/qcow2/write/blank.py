# SPDX-License-Identifier: MIT
"""Which bytes of clusters must be written where the file reads as zero already.

clusters   | 0 0 A A | B B B B | 0 0 0 0 | C 0 0 0 |
written          [----------]              [-]
"""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import KIB

if TYPE_CHECKING:
    from collections.abc import Iterator

# Writing fewer zeros is faster than making a hole; more of them are left out in whole pages.
_WORTH = 16 * KIB
_PAGE = 4 * KIB
_ZEROS = bytearray(_WORTH)


def parts_to_write(view: memoryview, cluster_size: int) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of the parts of view to be written; the bytes left out are zeros at the ends of clusters.

    view is whole clusters of cluster_size bytes.
    """
    firsts, lasts = view[::cluster_size].tobytes(), view[cluster_size - 1 :: cluster_size].tobytes()
    if cluster_size < _WORTH or not (0 in firsts or 0 in lasts):
        yield 0, len(view)
        return
    start = end = 0
    for at, first, last in zip(range(0, len(view), cluster_size), firsts, lasts, strict=True):
        low, high = at, at + cluster_size
        if not first:
            low = _after_zeros(view, low, high)
        if not last:
            high = _before_zeros(view, low, high)
        if low == high:
            continue
        if low > end:
            if start < end:
                yield start, end
            start = low
        end = high
    if start < end:
        yield start, end


def _after_zeros(view: memoryview, low: int, high: int) -> int:
    """The end of the zeros with which [low, high) of view begins; low if they are too few."""
    start = low
    for step in (_WORTH, _PAGE):
        while low + step <= high and _ZEROS[:step] == view[low : low + step]:
            low += step
        if low == start:
            break
    return low


def _before_zeros(view: memoryview, low: int, high: int) -> int:
    """The beginning of the zeros with which [low, high) of view ends; high if they are too few."""
    end = high
    for step in (_WORTH, _PAGE):
        while low + step <= high and _ZEROS[:step] == view[high - step : high]:
            high -= step
        if high == end:
            break
    return high
