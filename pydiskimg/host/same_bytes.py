# SPDX-License-Identifier: MIT
"""Whether two names stand for the same bytes: a file, the loop devices over it, and the partitions of a device."""

from __future__ import annotations

import os
import stat

from pydiskimg.linux.fileio import system_text
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeAlias

    # Device and inode of a file; number and None of a block device.
    Identity: TypeAlias = tuple[int, int | None]

# The kernel itself refuses loop devices that stand on each other in a circle.
MAX_DEPTH = 32
_TO_THE_END = 1 << 64
_SECTOR_SIZE = 512  # of /sys, whatever the device's own is


class _Range:
    """Bytes [start, end) of a file or block device."""

    __slots__ = ("end", "identity", "start")

    def __init__(self, identity: Identity, start: int, end: int) -> None:
        self.identity = identity
        self.start = start
        self.end = end


def overlap(one: os.stat_result, other: os.stat_result) -> bool:
    """True when a byte of one is a byte of the other, directly or through loop devices and partitions.

    Both are what os.stat() says of a file or block device; anything else overlaps with nothing. Two partitions of one
    device are apart, and so are two loop devices over different parts of one file. What the device-mapper makes of
    devices is not followed.
    """
    others = _ranges(other)
    return any(
        mine.identity == theirs.identity and mine.start < theirs.end and theirs.start < mine.end
        for mine in _ranges(one)
        for theirs in others
    )


def loop_backing(name: str, *, by_name: bool = False) -> Identity | None:
    """Return what the loop device of this name ("loop0") shows, None when that cannot be told or it is detached.

    by_name opens the device only when the name of what it shows does not tell: that a device is open has effects.
    """
    directory = f"/sys/block/{name}/loop"
    try:
        path = os.fsencode(system_text(f"{directory}/backing_file").rstrip("\n"))
    except OSError:
        return None
    for tell in (_named, _asked) if by_name else (_asked, _named):
        try:
            return tell(name, path)
        except (OSError, ValueError):  # only root may open a device; deleted, or in another mount namespace
            continue
    return None


def _ranges(status: os.stat_result) -> list[_Range]:
    """The range that a file or device is of itself, and those of what is below it."""
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        return []
    found = [_Range(_identity(status), 0, _TO_THE_END)]
    while found[-1].identity[1] is None and len(found) < MAX_DEPTH:
        below = _below(found[-1])
        if below is None:
            break
        found.append(below)
    return found


def _below(top: _Range) -> _Range | None:
    """The same bytes where the block device keeps them; None when that is the device itself."""
    number = top.identity[0]
    directory = os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    try:
        if os.path.exists(f"{directory}/partition"):
            major, minor = system_text(f"{os.path.dirname(directory)}/dev").split(":")
            offset = int(system_text(f"{directory}/start")) * _SECTOR_SIZE
            size = int(system_text(f"{directory}/size")) * _SECTOR_SIZE
            return _shifted(top, (os.makedev(int(major), int(minor)), None), offset, size)
        backing = loop_backing(os.path.basename(directory))
        if backing is None:
            return None
        limit = int(system_text(f"{directory}/loop/sizelimit"))
        return _shifted(top, backing, int(system_text(f"{directory}/loop/offset")), limit or _TO_THE_END)
    except (OSError, ValueError):  # it went meanwhile
        return None


def _shifted(top: _Range, identity: Identity, offset: int, size: int) -> _Range:
    return _Range(identity, top.start + offset, min(top.end, size) + offset)


def _named(_: str, path: bytes) -> Identity:
    return _identity(os.stat(path))


def _asked(name: str, _: bytes) -> Identity:
    from pydiskimg.linux.loopctl import get_status  # only here, as few names are those of loop devices

    fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return get_status(fd).backing
    finally:
        os.close(fd)


def _identity(status: os.stat_result) -> Identity:
    return (status.st_rdev, None) if stat.S_ISBLK(status.st_mode) else (status.st_dev, status.st_ino)
