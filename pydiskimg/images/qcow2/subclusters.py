# SPDX-License-Identifier: MIT
"""Clusters with mixed subclusters, many at once: an image of 1 MiB can have two million alternating subclusters.

subclusters  |DATA|HOLE|DATA|ZERO|DATA|HOLE|  ... 512 bytes each, for instance
read          <--------- at once ------->         then the rest is overwritten with zeros
"""

from __future__ import annotations

from pydiskimg.errors import DiskImageError
from pydiskimg.images.qcow2.layout import SUBCLUSTERS
from pydiskimg.images.qcow2.runs import DATA, HOLE, ZERO
from pydiskimg.images.qcow2.subcluster_bitmaps import INVERTED, copy_where, single_runs, spans, zero_where
from pydiskimg.images.qcow2.words import combined
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from pydiskimg.images.qcow2.runs import MixedRun

    ReadData: TypeAlias = Callable[[int, int, memoryview], None]

_STRENGTH = bytes.maketrans(bytes((ZERO, HOLE, DATA)), b"\1\2\4")
_STRONGEST = bytes((0, ZERO, HOLE, HOLE, DATA, DATA, DATA, DATA)).ljust(256, b"\0")


def coarse(kinds: bytes, count: int) -> bytes:
    """Return one kind for each count of kinds: DATA if any is DATA, else HOLE if any is, else ZERO."""
    strength = kinds.translate(_STRENGTH)
    number = 0
    for at in range(count):
        number |= int.from_bytes(strength[at::count], "big")
    return number.to_bytes(len(kinds) // count, "big").translate(_STRONGEST)


def fill(run: MixedRun, unit: int, buffer: memoryview, read_data: ReadData) -> None:
    """Fill buffer with the whole clusters of run, whose subclusters have unit bytes; holes are zero.

    read_data(at, host, part) fills part, for the bytes of the buffer from at on, with the bytes at the host offset. The
    beginning and end of a request are always stored; bytes in between may not be.
    """
    for start, end, host in spans(run.stored, unit, run.hosts):
        read_data(start, host, buffer[start:end])
    zero_where(run.stored.translate(INVERTED), unit, buffer)


def fill_over(
    run: MixedRun,
    unit: int,
    buffer: memoryview,
    read_data: ReadData,
    read_holes: Callable[[int, memoryview], None],
) -> None:
    """Fill buffer as fill() does; holes get the bytes of read_holes(at, part), called for more than holes."""
    size = unit * SUBCLUSTERS
    shown = combined(run.stored, run.zero)
    for start, end, _ in spans(shown.translate(INVERTED), unit, range(0, len(run.hosts) * size, size)):
        try:
            read_holes(start, buffer[start:end])
        except DiskImageError:
            # Data that are not visible through a hole do not matter: they need not even be readable.
            for first, after in single_runs(shown.translate(INVERTED), unit, start, end):
                read_holes(first, buffer[first:after])
    stored = memoryview(bytearray(len(buffer)))
    for start, end, host in spans(run.stored, unit, run.hosts):
        read_data(start, host, stored[start:end])
    copy_where(run.stored, unit, buffer, stored)
    zero_where(run.zero, unit, buffer)
