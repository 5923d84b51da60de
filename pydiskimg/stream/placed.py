# SPDX-License-Identifier: MIT
"""Uncompressed clusters that go from a source's files into a pipe without being read (docs/adr/0026)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pydiskimg.protocols import Place, Source, read_places
from pydiskimg.splicing import PAGE_SIZE
from pydiskimg.targets.pipe import PipeWriter
from pydiskimg.units import KIB

# Bytes are looked up in steps of this; for one that does not lie in a file, a step is read.
_STEP = 256 * KIB


@dataclass(frozen=True, slots=True)
class Placed:
    """length bytes of a source, from offset start on, and where they lie; places is None for what must be read."""

    start: int
    length: int
    places: list[Place] | None


def placed(source: Source, extents: list[tuple[int, int]], pipe: PipeWriter) -> Iterator[Placed]:
    """Yield what extents (start, length in bytes) of source consist of, in order; nothing has places for a non-pipe.

    The system is asked to read ahead what has places: on any thread, before it is the pipe's turn.
    """
    for start, length in extents:
        if not pipe.can_move:
            yield Placed(start, length, None)
            continue
        for at in range(start, start + length, _STEP):
            size = min(_STEP, start + length - at)
            yield Placed(at, size, _whole_pages(source, at, size))


def write_placed(source: Source, part: Placed, pipe: PipeWriter) -> None:
    """Move a part with places into the pipe; what the system does not move after all is read and written."""
    assert part.places is not None
    moved = pipe.move(part.places)
    if moved < part.length:
        rest = bytearray(part.length - moved)
        source.read_into(part.start + moved, rest)
        pipe.write(rest)


def _whole_pages(source: Source, start: int, length: int) -> list[Place] | None:
    """Return the places if they are whole pages: a pipe holds as many small pieces as pages."""
    places = read_places(source, start, length)
    if places is None or any((offset | size) % PAGE_SIZE for _, offset, size in places):
        return None
    for place in places:
        with suppress(OSError):
            os.posix_fadvise(*place, os.POSIX_FADV_WILLNEED)
    return places
