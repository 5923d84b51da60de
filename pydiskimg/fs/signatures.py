# SPDX-License-Identifier: MIT
"""Signatures of all that a partition or disk may hold besides, or instead of, the file system that fs.probe finds.

fs.probe finds the file system to mount, by its superblock. This module answers two other questions. Is that superblock
still valid? A member of a RAID, a cache or a pool keeps its own superblock elsewhere, and writes its data over the
rest. And may the disk hold anything at all? A damaged superblock can be repaired, most often from a copy.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from pydiskimg.fs.known_signatures import KNOWN, TABLES, TAKES_OVER, Signature, known_by_size
from pydiskimg.protocols import Source, read_bytes
from pydiskimg.units import KIB

# Reading across small gaps costs less than another system call.
_READ_ACROSS = 64 * KIB


def stranger(source: Source) -> str | None:
    """Return the possible new owner of source that left an old superblock or swap header intact, in words, or None.

    Raises StorageError as reading does.
    """
    found = _first(source, TAKES_OVER)
    return None if found is None else found[0]


def trace(source: Source) -> str | None:
    """Return what source may hold, or have held, and the byte offset of its signature; None if nothing is known.

    A signature at any of its format's offsets is enough; the structure that it begins may be damaged. table_trace()
    finds partition tables. About 1 MiB is read, for any size of the disk. Raises StorageError as reading does.
    """
    return _described(_first_known(source))


def signature_name(source: Source) -> str | None:
    """Return what source may hold, or have held, in words; None if nothing is known. Otherwise as trace()."""
    found = _first_known(source)
    return None if found is None else found[0]


def _first_known(source: Source) -> tuple[str, int] | None:
    return _first(source, (*TAKES_OVER, *KNOWN, *known_by_size(source.size)))


def table_trace(source: Source) -> str | None:
    """Return the partition table that source may have, as trace() does; boot code without a table counts as one."""
    return _described(_first(source, TABLES))


def _described(found: tuple[str, int] | None) -> str | None:
    return None if found is None else f"{found[0]} (its signature is at byte {found[1]})"


def _first(source: Source, signatures: Iterable[Signature]) -> tuple[str, int] | None:
    """Return the name that the first matching signature stands for, and the byte from which its marks are counted."""
    located = [(signature, start) for signature in signatures if (start := signature.start(source.size)) is not None]
    pieces = _Pieces(
        source, ((start + at, start + at + len(mark)) for signature, start in located for at, mark in signature.marks)
    )
    for signature, start in located:
        if all(pieces.has(start + at, mark) for at, mark in signature.marks):
            return signature.what, start
    return None


class _Pieces:
    """The bytes of ranges (first byte, byte after the last), each read once; neighbours with one read."""

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
