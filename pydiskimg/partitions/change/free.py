# SPDX-License-Identifier: MIT
"""Find where a table has room for another partition. All numbers are sectors."""

from __future__ import annotations

from collections.abc import Iterable

from pydiskimg.errors import DoesNotFitError, PartitionError
from pydiskimg.partitions.growth_plan import Span
from pydiskimg.units import format_bytes


class FreeSpace:
    """The sectors from first to before end that are in no span; starts and ends are aligned to multiples of align."""

    def __init__(self, name: str, first: int, end: int, taken: Iterable[Span], *, align: int, sector_size: int) -> None:
        self._name = name
        self._align = align
        self._sector_size = sector_size
        self.areas = list(_between(first, end, sorted(taken, key=lambda span: span.start)))

    def choose(self, start: int | None, length: int | None) -> tuple[int, int]:
        """Return (start, end) of a new partition: at start, or in the first area where it fits.

        Without length it takes the whole area; without both, the largest area. Raises DoesNotFitError if there is no
        room, PartitionError if start is taken.
        """
        if start is not None:
            return self._at(start, length)
        areas = [(first + -first % self._align, end - end % self._align) for first, end in self.areas]
        if length is None:
            first, end = max(areas, key=lambda area: area[1] - area[0], default=(0, 0))
            if end <= first:
                raise DoesNotFitError(
                    f"{self._name}: has no free space for another partition", needed=self._sector_size, available=0
                )
            return first, end
        for first, end in areas:
            if end - first >= length:
                return first, first + length
        raise self._too_small(length, max((end - first for first, end in areas), default=0))

    def _at(self, start: int, length: int | None) -> tuple[int, int]:
        for first, end in self.areas:
            if first <= start < end:
                last = end - end % self._align if end - end % self._align > start else end
                if length is not None and start + length > end:
                    raise self._too_small(length, end - start)
                return start, last if length is None else start + length
        raise PartitionError(
            f"{self._name}: byte {start * self._sector_size} is not free; free are bytes {self.described()}"
        )

    def described(self) -> str:
        """Return the free areas as bytes, for messages."""
        size = self._sector_size
        return ", ".join(f"{first * size} to {end * size}" for first, end in self.areas[:10]) or "none"

    def _too_small(self, needed: int, largest: int) -> DoesNotFitError:
        needed, largest = needed * self._sector_size, max(0, largest) * self._sector_size
        return DoesNotFitError(
            f"{self._name}: a partition of {format_bytes(needed)} does not fit; the largest free area has "
            f"{format_bytes(largest)}",
            needed=needed,
            available=largest,
        )


def _between(first: int, end: int, taken: list[Span]) -> Iterable[tuple[int, int]]:
    for span in taken:
        if span.start > first:
            yield first, min(span.start, end)
        first = max(first, span.end)
    if first < end:
        yield first, end
