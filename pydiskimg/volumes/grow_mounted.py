# SPDX-License-Identifier: MIT
"""A mounted file system grown by its own driver, and what the driver's refusals mean."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from pydiskimg.errors import FileSystemError
from pydiskimg.linux import fsgrowth

# What grows in this way, with the driver that does it and options besides those of every mount.
MOUNTED_AS = {
    "xfs": ("xfs", ""),
    "btrfs": ("btrfs", ""),
}

_REASONS = {
    errno.EPERM: "the kernel found errors in it",
    errno.EOPNOTSUPP: "it has a feature with which the kernel does not grow it",
    errno.EINVAL: "the kernel cannot make it so large",
    errno.ENOSPC: "no space is left for what the kernel writes, in it or below it",
    errno.EROFS: "it can only be mounted read-only, or became so because of errors",
    errno.EUCLEAN: "it is damaged; check it",
    errno.EBUSY: "it is being grown by somebody else",
    errno.ENOTTY: "this kernel cannot grow it while it is mounted",
}


def grow_mounted(target: str, fs_type: str, size: int, *, name: str) -> None:
    """Grow the file system mounted on target as MOUNTED_AS says to at most size (bytes); it never shrinks.

    name is what messages call it. Raises FileSystemError when the kernel does not do it.
    """
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _GROWERS[fs_type](fd, size, name)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        raise FileSystemError(f"{name}: the {fs_type} file system does not grow: {reason}; see dmesg") from error
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
        raise FileSystemError(f"{name}: its btrfs has a balance under way; let it end or cancel it in the guest first")


_GROWERS: dict[str, Callable[[int, int, str], None]] = {
    "xfs": _xfs,
    "btrfs": _btrfs,
}
