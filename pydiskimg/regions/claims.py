# SPDX-License-Identifier: MIT
"""The parts of disks that trees of this process change: whatever else writes there would destroy the file system.

The locks of a disk that is opened by its path keep other processes away, but an open Disk can be used more than once.
"""

from __future__ import annotations

import errno
from weakref import WeakSet

from pydiskimg.errors import InUseError, StorageError
from pydiskimg.regions.overlap import overlap
from pydiskimg.regions.region import Region
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.protocols import Disk

_CLAIMED: WeakSet[Region] = WeakSet()


def claim(region: Region) -> None:
    """Keep everything else from changing this part of a disk, until release() or until nothing refers to region.

    Raises InUseError if a tree changes a part of it.
    """
    require_unclaimed(region, "another tree")
    _CLAIMED.add(region)


def release(region: Region) -> None:
    """Let others change the part again."""
    _CLAIMED.discard(region)


def require_unclaimed(disk: Disk, by: str = "a tree") -> None:
    """Raise InUseError if an open tree, which by names, changes a part of disk."""
    if _CLAIMED and any(_overlap(disk, region) for region in [*_CLAIMED]):
        text = f"{disk.name}: is in use ({by} changes it; close that one first); nothing was written"
        raise InUseError(text, errno=errno.EBUSY, filename=disk.name)


def _overlap(disk: Disk, region: Region) -> bool:
    try:
        return overlap(disk, region)
    except StorageError:  # the disk was closed before the tree, which can change nothing any more
        return False
