# SPDX-License-Identifier: MIT
"""Checks before a mount: refuse superblocks that would make the kernel do more than mount (ADR 0073).

ext     open and write the device that the superblock names as its journal; wait for hours; accept mount options
xfs     (opens nothing by itself); allocate memory for millions of allocation groups
btrfs   join devices with the same fsid, open devices that the chunk tree names (ADR 0076)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TypeAlias

from pydiskimg.errors import FileSystemError, storage_error
from pydiskimg.host.before_mount import btrfs, ext, xfs
from pydiskimg.host.before_mount.reading import Reader

_Check: TypeAlias = Callable[[Reader, bool], str | None]

_CHECKS: Mapping[str, _Check] = {
    "ext2": ext.refusal,
    "ext3": ext.refusal,
    "ext4": ext.refusal,
    "xfs": xfs.refusal,
    "btrfs": btrfs.refusal,
}


def require_mountable(fd: int, fs_type: str, *, read_only: bool, name: str) -> None:
    """Raise FileSystemError when mounting the device would use other devices, or not end.

    fd is open for reading. Only the bytes that the kernel itself would read are checked; a device without a file system
    of fs_type passes, because the kernel refuses it. read_only tells how it will be mounted; name is the device's name
    in messages. Raises StorageError when it cannot be read.
    """
    check = _CHECKS.get(fs_type)
    if check is None:
        return
    try:
        reason = check(lambda offset, length: os.pread(fd, length, offset), read_only)
    except OSError as error:
        raise storage_error(error, name, f"the {fs_type} file system cannot be read before it is mounted") from error
    if reason is not None:
        raise FileSystemError(f"{name}: the {fs_type} file system is not mounted: {reason}")
