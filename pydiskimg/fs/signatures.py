# SPDX-License-Identifier: MIT
"""What a partition or disk may hold beside, or instead of, what fs.probe finds: its signatures are looked for.

fs.probe tells what is to be mounted, by its own superblock. Two other questions are answered here. Is that superblock
still in force? A member of a RAID, a cache or a pool keeps its own somewhere else, and writes its data over the rest.
And may there be anything at all? A damaged superblock can be repaired, most often from a copy.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from pydiskimg.fs.known_signatures import KNOWN, TABLES, TAKES_OVER, Signature, known_by_size
from pydiskimg.protocols import Source, read_bytes
from pydiskimg.units import KIB

# Reading across what is not looked at costs less than another call to the system.
_READ_ACROSS = 64 * KIB


def stranger(source: Source) -> str | None:
    """Return what may have taken source over and left an old superblock or swap header alone, in words, or None.

    Raises StorageError as reading does.
    """
    found = _first(source, TAKES_OVER)
    return None if found is None else found[0]


def trace(source: Source) -> str | None:
    """Return what source may hold, or have held, and at which byte that is to be seen; None for nothing known.

    A signature is enough, at any of the offsets where its owner keeps one; whether what it begins is sound does not
    matter. Partition tables are table_trace()'s. About 1 MiB is read, wherever the disk ends; raises StorageError as
    reading does.
    """
    return _described(_first(source, (*TAKES_OVER, *KNOWN, *known_by_size(source.size))))


def table_trace(source: Source) -> str | None:
    """Return which partition table source may have, as trace() does; boot code without a table counts as one."""
    return _described(_first(source, TABLES))


def _described(found: tuple[str, int] | None) -> str | None:
    return None if found is None else f"{found[0]} (its signature is at byte {found[1]})"


def _first(source: Source, signatures: Iterable[Signature]) -> tuple[str, int] | None:
    """Return what the first of the signatures that is there says, and the byte from which its marks are counted."""
    located = [(signature, start) for signature in signatures if (start := signature.start(source.size)) is not None]
    pieces = _Pieces(
        source, ((start + at, start + at + len(mark)) for signature, start in located for at, mark in signature.marks)
    )
    for signature, start in located:
        if all(pieces.has(start + at, mark) for at, mark in signature.marks):
            return signature.what, start
    return None


class _Pieces:
    """The bytes of ranges (first byte, byte after the last), read once; neighbours in one go."""

    def __init__(self, source: Source, ranges: Iterable[tuple[int, int]]) -> None:
        joined: list[list[int]] = []
        for first, last in sorted(ranges):
            if joined and first - joined[-1][1] <= _READ_ACROSS:
                joined[-1][1] = max(joined[-1][1], last)
            else:
                joined.append([first, last])
        self._starts = [first for first, _ in joined]
        self._contents = [read_bytes(source, first, last - first) for first, last in joined]

    def has(self, offset: int, mark: bytes) -> bool:
        piece = bisect_right(self._starts, offset) - 1
        return self._contents[piece].startswith(mark, offset - self._starts[piece])
