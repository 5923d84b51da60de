# SPDX-License-Identifier: MIT
"""The bytes visible through the holes of an image: its backing file, and zeros beyond its end."""

from __future__ import annotations

from pydiskimg.extents import Extent, Kind
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydiskimg.protocols import Source

_ZEROS = memoryview(bytes(256 << 10))


def read_behind(backing: Source, offset: int, part: memoryview) -> None:
    """Fill part with the bytes of backing from offset on, and with zeros beyond its end."""
    stored = max(0, min(len(part), backing.size - offset))
    if stored:
        backing.read_into(offset, part[:stored])
    fill_with_zeros(part[stored:])


def fill_with_zeros(part: memoryview) -> None:
    """Set every byte of part to zero."""
    if len(part) <= len(_ZEROS):
        part[:] = _ZEROS[: len(part)]
        return
    for at in range(0, len(part), len(_ZEROS)):
        piece = part[at : at + len(_ZEROS)]
        piece[:] = _ZEROS[: len(piece)]


def over(own: Iterable[Extent], behind: Iterator[Extent]) -> Iterator[Extent]:
    """Yield the extents of an image over those of its backing file: every HOLE is replaced by the extents below it.

    Neighbours may be of one kind; merged() joins them. Beyond the end of the backing file a HOLE stays a HOLE.
    """
    current = next(behind, None)
    for extent in own:
        if extent.kind is not Kind.HOLE:
            yield extent
            continue
        position = extent.start
        while position < extent.end:
            while current is not None and current.end <= position:
                current = next(behind, None)
            if current is None:
                yield Extent(position, extent.end - position, Kind.HOLE)
                break
            end = min(current.end, extent.end)
            yield Extent(position, end - position, current.kind)
            position = end
