# SPDX-License-Identifier: MIT
"""Bitmaps of blocks and of inodes, and runs: the same as ascending pairs (first, after the last)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Run = tuple[int, int]
"""First block and the block after the last."""


def bitmap(runs: Iterable[Run], count: int, block_size: int) -> bytes:
    """Return a bitmap block with the bits of runs set, and also all bits from count on, which have no block."""
    bits = 0
    for first, last in runs:
        bits |= (1 << last) - (1 << first)
    return bitmap_of(bits, count, block_size)


def bitmap_of(bits: int, count: int, block_size: int) -> bytes:
    """As bitmap(), for bits of which the first is bit 0."""
    return (bits | (1 << block_size * 8) - (1 << count)).to_bytes(block_size, "little")


def bits_in_use(data: bytes, count: int) -> int | None:
    """Return the first count bits of a bitmap block (bit 0 is the first); None if a bit from count on is not set."""
    bits = int.from_bytes(data, "little")
    if bits >> count != (1 << 8 * len(data) - count) - 1:
        return None
    return bits & (1 << count) - 1


def runs_of(bits: int) -> Iterator[Run]:
    """Yield the runs of ones in bits, from bit 0 on."""
    text = f"{bits:b}"[::-1]  # one step for each run: a loop over bits takes a hundred times as long
    start = text.find("1")
    while start >= 0:
        end = text.find("0", start)
        if end < 0:
            yield start, len(text)
            return
        yield start, end
        start = text.find("1", end)


def clipped(runs: Iterable[Run], start: int, end: int) -> list[Run]:
    """Return the parts of runs inside [start, end), counted from start."""
    return [(max(first, start) - start, min(last, end) - start) for first, last in runs if first < end and last > start]


def total(runs: Iterable[Run]) -> int:
    """Return the number of blocks in disjoint runs."""
    return sum(last - first for first, last in runs)


def insert(runs: list[Run], start: int, end: int) -> None:
    """Add the run [start, end), which overlaps none of them, to ascending disjoint runs and join neighbours."""
    at = 0
    while at < len(runs) and runs[at][1] < start:
        at += 1
    stop = at
    while stop < len(runs) and runs[stop][0] <= end:
        start, end = min(start, runs[stop][0]), max(end, runs[stop][1])
        stop += 1
    runs[at:stop] = [(start, end)]


def find(runs: list[Run], start: int, before: int, length: int, limit: int) -> int | None:
    """Return the first block in [start, before) that begins length free blocks ending by limit."""
    for first, last in runs:
        if last <= start:
            continue
        if first >= start + length:
            break
        start = last
    return start if start < before and start + length <= limit else None
