# SPDX-License-Identifier: MIT
"""Find out whether two names stand for the same bytes: a file, the loop devices over it, the partitions of a device."""

from __future__ import annotations

import os
import stat

from pydiskimg.linux.fileio import device_directory, device_number, system_text
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeAlias

    # Device and inode of a file; number and None of a block device.
    Identity: TypeAlias = tuple[int, int | None]

# The kernel itself refuses loop devices that stand on each other in a circle.
MAX_DEPTH = 32
_TO_THE_END = 1 << 64
_SECTOR_SIZE = 512  # the unit of /sys, for every sector size of the device


class _Range:
    """Bytes [start, end) of a file or block device."""

    __slots__ = ("end", "identity", "start")

    def __init__(self, identity: Identity, start: int, end: int) -> None:
        self.identity = identity
        self.start = start
        self.end = end


def overlap(one: os.stat_result, other: os.stat_result) -> bool:
    """True when the two share a byte, directly or through loop devices and partitions.

    Both are results of os.stat() for a file or block device; other file types overlap with nothing. Two partitions of
    one device do not overlap, nor do two loop devices over different parts of one file. Devices of the device-mapper
    are not resolved.
    """
    others = _ranges(other)
    return any(
        mine.identity == theirs.identity and mine.start < theirs.end and theirs.start < mine.end
        for mine in _ranges(one)
        for theirs in others
    )


def loop_backing(name: str, *, by_name: bool = False) -> Identity | None:
    """Return the range of the loop device with this name ("loop0"); None if it is unknown or the device is detached.

    by_name avoids opening the device when the backing file's name is enough: opening a device has effects.
    """
    directory = f"/sys/block/{name}/loop"
    try:
        path = os.fsencode(system_text(f"{directory}/backing_file").rstrip("\n"))
    except OSError:
        return None
    for tell in (_named, _asked) if by_name else (_asked, _named):
        try:
            return tell(name, path)
        # only root may open a device; or the file is deleted, or in another mount namespace
        except (OSError, ValueError):
            continue
    return None


def _ranges(status: os.stat_result) -> list[_Range]:
    """The file's or device's own range, and the ranges of the files and devices below it."""
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
    """The same bytes on the block device below; None if there is none."""
    directory = os.path.realpath(device_directory(top.identity[0]))
    try:
        if os.path.exists(f"{directory}/partition"):
            disk = device_number(os.path.dirname(directory))
            offset = int(system_text(f"{directory}/start")) * _SECTOR_SIZE
            size = int(system_text(f"{directory}/size")) * _SECTOR_SIZE
            return _shifted(top, (disk, None), offset, size)
        backing = loop_backing(os.path.basename(directory))
        if backing is None:
            return None
        limit = int(system_text(f"{directory}/loop/sizelimit"))
        return _shifted(top, backing, int(system_text(f"{directory}/loop/offset")), limit or _TO_THE_END)
    except (OSError, ValueError):  # it was removed meanwhile
        return None


def _shifted(top: _Range, identity: Identity, offset: int, size: int) -> _Range:
    return _Range(identity, top.start + offset, min(top.end, size) + offset)


def _named(_: str, path: bytes) -> Identity:
    return _identity(os.stat(path))


def _asked(name: str, _: bytes) -> Identity:
    from pydiskimg.linux.loopctl import get_status  # imported here, because few names are those of loop devices

    fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return get_status(fd).backing
    finally:
        os.close(fd)


def _identity(status: os.stat_result) -> Identity:
    return (status.st_rdev, None) if stat.S_ISBLK(status.st_mode) else (status.st_dev, status.st_ino)
