# SPDX-License-Identifier: MIT
"""The parts of disks that trees of this process change: two that change one file system would destroy it.

The locks of a disk that is opened by its path keep other processes away, but an open Disk can be given to two trees.
"""

from __future__ import annotations

import errno
from weakref import WeakSet

from pydiskimg.disks.overlap import overlap
from pydiskimg.disks.region import Region
from pydiskimg.errors import InUseError, StorageError
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from pydiskimg.volumes.find import Volume

_CHANGING: WeakSet[Region] = WeakSet()


def claimed_region(disk: Any, volume: Volume) -> Region:
    """Return the part of the disk that is to be changed, until release_region() or until nothing refers to it.

    Raises InUseError if another tree changes a part of it, ValueError for a Source that is not a Disk.
    """
    if not hasattr(disk, "write"):
        raise ValueError(f"{disk.name}: is a Source, and only a Disk can be changed")
    name = f"{disk.name}, {volume.location}"
    region = Region(disk, volume.partition.start, volume.partition.length, name=name)
    if any(_overlap(region, other) for other in [*_CHANGING]):
        text = f"{name}: is in use (another tree changes it; close that one first); nothing was written"
        raise InUseError(text, errno=errno.EBUSY, filename=name)
    _CHANGING.add(region)
    return region


def _overlap(region: Region, other: Region) -> bool:
    try:
        return overlap(region, other)
    except StorageError:  # the other one's disk was closed before its tree, which can change nothing any more
        return False


def release_region(region: Region) -> None:
    """Let other trees change the part again."""
    _CHANGING.discard(region)
