# SPDX-License-Identifier: MIT
"""Find out whether two sources or disks share bytes: regions of one disk, or one file that was opened twice."""

from __future__ import annotations

from pydiskimg.disks.region import SourceRegion
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.protocols import Source


def distance(one: Source, other: Source) -> int | None:
    """Return where other starts, counted from the start of one (bytes); None unless both are in the same file or disk.

    Two opened images of another format than raw are not compared: one offset of their disks has one meaning.
    """
    (base, start), (other_base, other_start) = _place(one), _place(other)
    return other_start - start if base == other_base else None


def overlap(one: Source, other: Source) -> bool:
    """True when the two share a byte."""
    between = distance(one, other)
    return between is not None and -other.size < between < one.size


def _place(source: Source) -> tuple[object, int]:
    """Return what identifies the whole file or disk, and the offset in it (bytes)."""
    start = 0
    while isinstance(source, SourceRegion):
        start += source.start
        source = source.source
    return getattr(source, "identity", None) or id(source), start
