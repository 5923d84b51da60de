# SPDX-License-Identifier: MIT
"""The system on a disk fills it: what an image or a backup holds is whole also where it does not grow."""

from __future__ import annotations

import errno
import logging

from pydiskimg.errors import DiskImageError, StorageError
from pydiskimg.protocols import ShownDisk
from pydiskimg.volumes.grow import grow_last_volume

log = logging.getLogger(__name__)

# The node's disk is at fault, and not what the guest has on it.
_DISK_FAILS = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ENXIO, errno.EREMOTEIO})


def grow(disk: ShownDisk, *, done: str | None = None) -> bool:
    """Let the last partition and its file system grow; False, after a warning, where they do not.

    done says for an error what is complete all the same, if anything is: "everything is restored". Raises StorageError
    when the disk itself fails.
    """
    try:
        log.info("%s", grow_last_volume(disk))
    except DiskImageError as error:
        if isinstance(error, StorageError) and error.errno in _DISK_FAILS:
            text = f"growing failed: {error}" if done is None else f"{done}, but growing failed: {error}"
            raise StorageError(text, errno=error.errno, filename=disk.name) from error
        log.warning("%s", error)
        return False
    return True
