# SPDX-License-Identifier: MIT
"""What was copied becomes the instance and fills the disk; it is whole also where it does not grow."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from ganeti_os.install.held_disk import HeldDisk, released_after
from ganeti_os.install.installation import Installation
from ganeti_os.log import Messages
from pydiskimg.errors import DiskImageError, StorageError
from pydiskimg.protocols import ShownDisk

log = logging.getLogger(__name__)

# The node's disk is at fault, and not what the guest has on it.
_DISK_FAILS = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ENXIO, errno.EREMOTEIO})


def release_grown(
    target: HeldDisk,
    installation: Installation,
    change: Callable[[ShownDisk], None],
    *,
    done: str,
    needs_table: bool = False,
) -> bool:
    """Let the system fill the disk and change() make it the instance; release the disk; False where it does not grow.

    It grows first, unless change() or the system itself needs the table on the disk before. done says for an error of
    growing then what is complete all the same: "everything is restored".
    """
    is_free = target.lies_after_head
    grows_first = installation.grows and is_free
    may_mount = installation.settings.guest_mount
    grew = not grows_first or grow(target, installation.messages, may_mount=may_mount)
    with released_after(target, with_table=needs_table or not is_free) as disk:
        change(disk)
    if installation.grows and not grows_first:
        grew = grow(target.shown, installation.messages, done=done, may_mount=may_mount)
    return grew


def grow(disk: ShownDisk, messages: Messages, *, done: str | None = None, may_mount: bool = True) -> bool:
    """Let the last partition and its file system grow; False, after a warning, where they do not.

    Raises StorageError when the disk itself fails; done is what release_grown() says of it.
    """
    # Only here: it takes longer to import than a small disk to copy.
    from pydiskimg.volumes.grow import grow_last_volume

    try:
        with messages.step("growing"):
            log.info("%s", grow_last_volume(disk, may_mount=may_mount))
    except DiskImageError as error:
        if isinstance(error, StorageError) and error.errno in _DISK_FAILS:
            text = f"growing failed: {error}" if done is None else f"{done}, but growing failed: {error}"
            raise StorageError(text, errno=error.errno, filename=disk.name) from error
        log.warning("%s", error)
        return False
    return True
