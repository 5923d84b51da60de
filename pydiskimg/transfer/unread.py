# SPDX-License-Identifier: MIT
"""Uncompressed clusters that go from a source's files into a pipe without being read (docs/adr/0026)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pydiskimg.protocols import FileRange, Source
from pydiskimg.transfer.pipe import PipeWriter
from pydiskimg.transfer.splice import PAGE_SIZE
from pydiskimg.units import KIB

# Bytes are looked up in steps of this; for one that does not lie in a file, a step is read.
_STEP = 256 * KIB


@dataclass(frozen=True, slots=True)
class Part:
    """length bytes of a source, from offset start on; ranges is where they lie in files, None for what must be read."""

    start: int
    length: int
    ranges: list[FileRange] | None


def parts_of(source: Source, extents: list[tuple[int, int]], pipe: PipeWriter) -> Iterator[Part]:
    """Yield what extents (start, length in bytes) of source consist of, in order; nothing has ranges for a non-pipe.

    The system is asked to read ahead what has ranges: on any thread, before it is the pipe's turn.
    """
    for start, length in extents:
        if not pipe.can_move:
            yield Part(start, length, None)
            continue
        for at in range(start, start + length, _STEP):
            size = min(_STEP, start + length - at)
            yield Part(at, size, _whole_pages(source, at, size))


def write_part(source: Source, part: Part, pipe: PipeWriter) -> None:
    """Move a part with ranges into the pipe; what the system does not move after all is read and written."""
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
