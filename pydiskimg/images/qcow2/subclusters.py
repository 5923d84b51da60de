# SPDX-License-Identifier: MIT
"""Clusters whose subclusters differ, many at once: an image of 1 MiB can have two million subclusters in turns.

subclusters  |DATA|HOLE|DATA|ZERO|DATA|HOLE|  ... 512 bytes each, for instance
read          <--------- at once ------->         then zeros are laid over what is not data
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
    """Return one kind for each count of kinds: DATA where any is DATA, else HOLE where any is, else ZERO."""
    strength = kinds.translate(_STRENGTH)
    number = 0
    for at in range(count):
        number |= int.from_bytes(strength[at::count], "big")
    return number.to_bytes(len(kinds) // count, "big").translate(_STRONGEST)


def fill(run: MixedRun, unit: int, buffer: memoryview, read_data: ReadData) -> None:
    """Fill buffer with the whole clusters of run, the subclusters of which have unit bytes; holes are zero.

    read_data(at, host, part) fills part, which is for byte at of the buffer and those after it, with what is stored at
    the host offset. It is never asked for a beginning or an end that is not stored; what lies in between may be.
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
    """Fill buffer as fill() does; holes show what read_holes(at, part) gives, which may be asked for more as well."""
    size = unit * SUBCLUSTERS
    shown = combined(run.stored, run.zero)
    for start, end, _ in spans(shown.translate(INVERTED), unit, range(0, len(run.hosts) * size, size)):
        try:
            read_holes(start, buffer[start:end])
        except DiskImageError:
            # What is not seen through a hole does not matter: it need not even be readable.
            for first, after in single_runs(shown.translate(INVERTED), unit, start, end):
                read_holes(first, buffer[first:after])
    stored = memoryview(bytearray(len(buffer)))
    for start, end, host in spans(run.stored, unit, run.hosts):
        read_data(start, host, stored[start:end])
    copy_where(run.stored, unit, buffer, stored)
    zero_where(run.zero, unit, buffer)
