# SPDX-License-Identifier: MIT
"""Grow a mounted file system by its own driver, and explain the driver's errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from pydiskimg.errors import FileSystemError
from pydiskimg.linux import fsgrowth

# The types that grow in this way, with the driver for each and options in addition to those of every mount.
MOUNTED_AS = {
    "xfs": ("xfs", ""),
    "btrfs": ("btrfs", ""),
}

_REASONS = {
    errno.EPERM: "the kernel found errors in it",
    errno.EOPNOTSUPP: "it has a feature with which the kernel cannot grow it",
    errno.EINVAL: "the kernel cannot make it so large",
    errno.ENOSPC: "there is no space left for the kernel's writes, in it or below it",
    errno.EROFS: "it can only be mounted read-only, or became read-only after errors",
    errno.EUCLEAN: "it is damaged; check it",
    errno.EBUSY: "another process is growing it",
    errno.ENOTTY: "this kernel cannot grow it while it is mounted",
}


def grow_mounted(target: str, fs_type: str, size: int, *, name: str) -> None:
    """Grow the file system mounted on target as MOUNTED_AS says, to at most size (bytes); it never shrinks.

    name is its name in messages. Raises FileSystemError when the kernel refuses.
    """
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _GROWERS[fs_type](fd, size, name)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        raise FileSystemError(f"{name}: the {fs_type} file system cannot be grown: {reason}; see dmesg") from error
    finally:
        os.close(fd)


def _xfs(fd: int, size: int, _name: str) -> None:
    block_size, blocks, inodes_percent = fsgrowth.xfs_geometry(fd)
    if size // block_size > blocks:
        fsgrowth.grow_xfs(fd, size // block_size, inodes_percent)


def _btrfs(fd: int, _size: int, name: str) -> None:
    count, highest = fsgrowth.btrfs_devices(fd)
    if count != 1:
        raise FileSystemError(f"{name}: its btrfs spans {count} devices; none of them is grown")
    if not fsgrowth.grow_btrfs(fd, highest):
        raise FileSystemError(
            f"{name}: its btrfs has an unfinished balance; let it finish or cancel it in the guest first"
        )


_GROWERS: dict[str, Callable[[int, int, str], None]] = {
    "xfs": _xfs,
    "btrfs": _btrfs,
}
