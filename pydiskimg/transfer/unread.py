# SPDX-License-Identifier: MIT
"""Move uncompressed clusters from a source's files into a pipe without reading them (docs/adr/0026)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pydiskimg.protocols import FileRange, Source
from pydiskimg.transfer.pipe import PipeWriter
from pydiskimg.transfer.splice import PAGE_SIZE
from pydiskimg.units import KIB

# Bytes are looked up in steps of this size; if a byte is not in a file, the whole step is read.
_STEP = 256 * KIB


@dataclass(frozen=True, slots=True)
class Part:
    """length bytes of a source, from offset start on; ranges are their locations in files, None if it must be read."""

    start: int
    length: int
    ranges: list[FileRange] | None


def parts_of(source: Source, extents: list[tuple[int, int]], pipe: PipeWriter) -> Iterator[Part]:
    """Yield the parts of extents (start, length in bytes) of source, in order; without ranges if it is not a pipe.

    The system is asked to read ahead parts with ranges: on any thread, before the pipe needs them.
    """
    for start, length in extents:
        if not pipe.can_move:
            yield Part(start, length, None)
            continue
        for at in range(start, start + length, _STEP):
            size = min(_STEP, start + length - at)
            yield Part(at, size, _whole_pages(source, at, size))


def write_part(source: Source, part: Part, pipe: PipeWriter) -> None:
    """Move a part with ranges into the pipe; bytes that the system does not move are read and written."""
    assert part.ranges is not None
    moved = pipe.move(part.ranges)
    if moved < part.length:
        rest = bytearray(part.length - moved)
        source.read_into(part.start + moved, rest)
        pipe.write(rest)


def _whole_pages(source: Source, start: int, length: int) -> list[FileRange] | None:
    """Return the ranges if they are whole pages: a pipe holds as many small pieces as pages."""
    ranges = source.file_ranges(start, length)
    if ranges is None or any((offset | size) % PAGE_SIZE for _, offset, size in ranges):
        return None
    for location in ranges:
        with suppress(OSError):
            os.posix_fadvise(*location, os.POSIX_FADV_WILLNEED)
    return ranges
