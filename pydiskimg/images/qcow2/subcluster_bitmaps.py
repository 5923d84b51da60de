# SPDX-License-Identifier: MIT
"""Bitmaps of subclusters, and the bytes of their subclusters: eight subclusters are one step.

A bitmap has BITMAP bytes for each cluster. The runs of bits of each byte value are computed in advance.
"""

from __future__ import annotations

import sys
from array import array

from pydiskimg.images.qcow2.layout import SUBCLUSTERS
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Reading across a gap of this many bytes is faster than reading twice.
GAP = 16 << 10

_BITS = 8
_ONES = 0xFFFF_FFFF
INVERTED = bytes(0xFF ^ byte for byte in range(256))


def zero_where(bitmap: bytes, unit: int, buffer: memoryview) -> None:
    """Zero the subclusters of buffer, of unit bytes each, whose bits are set."""
    runs, step, at = _runs(unit), _BITS * unit, 0
    for byte in bitmap:
        if byte:
            part = buffer[at : at + step]
            for where, zeros in runs[byte]:
                part[where] = zeros
        at += step


def copy_where(bitmap: bytes, unit: int, buffer: memoryview, source: memoryview) -> None:
    """Copy the subclusters whose bits are set from source, which is as long as buffer."""
    runs, step, at = _runs(unit), _BITS * unit, 0
    for byte in bitmap:
        if byte:
            part, same = buffer[at : at + step], source[at : at + step]
            for where, _ in runs[byte]:
                part[where] = same[where]
        at += step


def spans(bitmap: bytes, unit: int, hosts: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, host) of the bytes to read for the subclusters whose bits are set, and for small gaps.

    hosts has the host offset of each cluster; contiguous clusters are read together. start and end are counted from the
    first cluster on; no span begins or ends in a gap.
    """
    size, gap = unit * SUBCLUSTERS, max(1, GAP // unit)
    start = end = ahead = 0
    for number, word in enumerate(_words(bitmap)):
        base = number * size
        for first, after in _parts(word, gap) if word else ():
            next_start, next_ahead = base + first * unit, hosts[number] - base
            if next_ahead != ahead or next_start - end > gap * unit or start == end:
                if start < end:
                    yield start, end, start + ahead
                start, ahead = next_start, next_ahead
            end = base + after * unit
    if start < end:
        yield start, end, start + ahead


def single_runs(bitmap: bytes, unit: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(first, after), in bytes, of the subclusters in [start, end) whose bits are set; those of a byte are together."""
    for at, byte in enumerate(bitmap):
        for where, _ in _runs(unit)[byte]:
            first = at * _BITS * unit + where.start
            after = first + where.stop - where.start
            if start <= first and after <= end:
                yield first, after


def _words(bitmap: bytes) -> array[int]:
    words = array("I", bitmap)
    if sys.byteorder == "big":
        words.byteswap()
    return words


def _parts(word: int, gap: int) -> Iterator[tuple[int, int]]:
    """(first, after) of the runs of bits in a word that is not 0, over up to gap zeros each."""
    while word:
        first = (word & -word).bit_length() - 1
        rest = word >> first
        after = first + (rest & _until_gap(rest, gap)).bit_length()
        yield first, after
        word = word >> after << after


def _until_gap(word: int, gap: int) -> int:
    """Ones from bit 0, which is set in word, until more than gap zeros follow each other, and over gap of these."""
    if gap >= SUBCLUSTERS:
        return _ONES
    for _ in range(gap):
        word |= word << 1
    return (word ^ word + 1) >> 1


_known_runs: dict[int, list[list[tuple[slice, memoryview]]]] = {}


def _runs(unit: int) -> list[list[tuple[slice, memoryview]]]:
    """For each value of a byte the runs of its ones, as slices of bytes, and as many zeros."""
    found = _known_runs.get(unit)
    if found is None:
        zeros = memoryview(bytes(_BITS * unit))
        found = _known_runs[unit] = [
            [(slice(first * unit, after * unit), zeros[: (after - first) * unit]) for first, after in _parts(byte, 0)]
            for byte in range(256)
        ]
    return found
