# SPDX-License-Identifier: MIT
"""Clusters whose subclusters differ, many at once: an image of 1 MiB can have two million subclusters in turns.

subclusters  |DATA|HOLE|DATA|ZERO|DATA|HOLE|  ... 512 bytes each, for instance
read          <--------- at once ------->         then zeros are laid over what is not data
"""

from __future__ import annotations

import re

from pydiskimg.errors import DiskImageError
from pydiskimg.images.qcow2.backing import fill_with_zeros
from pydiskimg.images.qcow2.runs import DATA, HOLE, ZERO
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# To read over a gap of this many bytes is sooner done than to read twice.
GAP = 16 << 10

_DATA, _HOLES, _ZEROS, _NOT_DATA = (re.compile(pattern) for pattern in (b"D+", b"H+", b"Z+", b"[^D]+"))
_STRENGTH = bytes.maketrans(bytes((ZERO, HOLE, DATA)), b"\1\2\4")
_STRONGEST = bytes((0, ZERO, HOLE, HOLE, DATA, DATA, DATA, DATA)).ljust(256, b"\0")


def coarse(kinds: bytes, count: int) -> bytes:
    """Return one kind for each count of kinds: DATA where any is DATA, else HOLE where any is, else ZERO."""
    strength = kinds.translate(_STRENGTH)
    number = 0
    for at in range(count):
        number |= int.from_bytes(strength[at::count], "big")
    return number.to_bytes(len(kinds) // count, "big").translate(_STRONGEST)


def fill(kinds: bytes, unit: int, buffer: memoryview, read_data: Callable[[int, memoryview], None]) -> None:
    """Fill buffer, under which there is one of kinds for each unit bytes; holes are zero.

    read_data(at, part) fills part with what the clusters store for byte at of the buffer and those after it. It is
    never asked for a beginning or an end that is not DATA; what lies in between may be.
    """
    for first, after in _joined(kinds, DATA, unit):
        read_data(first * unit, buffer[first * unit : after * unit])
    _zero(kinds, _NOT_DATA, unit, buffer)


def fill_over(
    kinds: bytes,
    unit: int,
    buffer: memoryview,
    read_data: Callable[[int, memoryview], None],
    read_holes: Callable[[int, memoryview], None],
) -> None:
    """Fill buffer as fill() does; holes show what read_holes(at, part) gives, which may be asked for more as well."""
    for first, after in _joined(kinds, HOLE, unit):
        try:
            read_holes(first * unit, buffer[first * unit : after * unit])
        except DiskImageError:
            # What is not seen through a hole does not matter: it need not even be readable.
            for at, end in _parts(kinds, _HOLES, unit, first, after):
                read_holes(at, buffer[at:end])
    for first, after in _joined(kinds, DATA, unit):
        begin = first * unit
        stored = memoryview(bytearray(after * unit - begin))
        read_data(begin, stored)
        for at, end in _parts(kinds, _DATA, unit, first, after):
            buffer[at:end] = stored[at - begin : end - begin]
    _zero(kinds, _ZEROS, unit, buffer)


def _zero(kinds: bytes, pattern: re.Pattern[bytes], unit: int, buffer: memoryview) -> None:
    one = bytes(unit)
    for found in pattern.finditer(kinds):
        first, after = found.span()
        if after - first == 1:
            buffer[first * unit : after * unit] = one
        else:
            fill_with_zeros(buffer[first * unit : after * unit])


def _joined(kinds: bytes, kind: int, unit: int) -> Iterator[tuple[int, int]]:
    """(first, after) of the runs of a kind, those with small gaps between them being one."""
    gap = max(1, GAP // unit)
    first = kinds.find(kind)
    while first >= 0:
        after = first + 1
        while (following := kinds.rfind(kind, after, after + gap + 1)) >= 0:
            after = following + 1
        yield first, after
        first = kinds.find(kind, after + gap)


def _parts(kinds: bytes, pattern: re.Pattern[bytes], unit: int, first: int, after: int) -> Iterator[tuple[int, int]]:
    for found in pattern.finditer(kinds, first, after):
        yield found.start() * unit, found.end() * unit
