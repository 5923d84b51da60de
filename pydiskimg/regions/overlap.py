# SPDX-License-Identifier: MIT
"""Find out whether two sources or disks share bytes: regions of one disk, or one file that was opened twice."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from pydiskimg.regions.region import SourceRegion
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.protocols import Source


def distance(one: Source, other: Source) -> int | None:
    """Return where other starts, counted from the start of one (bytes); None unless both are in the same file or disk.

    Two opened images of another format than raw are not compared: one offset of their disks has one meaning.
    """
    (base, start), (other_base, other_start) = _whole_of(one), _whole_of(other)
    return other_start - start if base == other_base else None


def overlap(one: Source, other: Source) -> bool:
    """True when the two share a byte."""
    between = distance(one, other)
    return between is not None and -other.size < between < one.size


def is_read_from(source: Source, fd: int) -> bool:
    """True when fd is open on a regular file or block device that the source, or an image below it, is read from."""
    while isinstance(source, SourceRegion):
        source = source.source
    with suppress(OSError):  # fd is not open, which writing to it reports
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode):
            for name in source.files():
                with suppress(OSError, ValueError):  # not every source is a file
                    if os.path.samestat(os.stat(name), status):
                        return True
    return False


def _whole_of(source: Source) -> tuple[object, int]:
    """Return what identifies the whole file or disk, and the offset in it (bytes)."""
    start = 0
    while isinstance(source, SourceRegion):
        start += source.start
        source = source.source
    return getattr(source, "identity", None) or id(source), start
