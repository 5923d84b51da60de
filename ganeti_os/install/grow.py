# SPDX-License-Identifier: MIT
"""Grow a copied system to fill the disk and make it the instance; it is complete even if it cannot grow."""

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

# Errors of the node's disk, as opposed to its contents.
_DISK_FAILS = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ENXIO, errno.EREMOTEIO})


def release_grown(
    target: HeldDisk,
    installation: Installation,
    change: Callable[[ShownDisk], None],
    *,
    done: str,
    needs_table: bool = False,
) -> bool:
    """Grow the system to fill the disk and let change() make it the instance; release the disk; False if it cannot
    grow.

    It grows first, unless change() or the system itself needs the table on the disk earlier. done says for an error of
    growing what is nevertheless complete: "everything is restored".
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
    """Grow the last partition and its file system; False, after a warning, if that fails.

    Raises StorageError when the disk itself fails; done is as for release_grown().
    """
    # Imported here: it takes longer to import than copying a small disk.
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
