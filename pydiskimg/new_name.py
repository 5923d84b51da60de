# SPDX-License-Identifier: MIT
"""Under which names a new file is made: not that of a directory, nor in the directory of the devices."""

from __future__ import annotations

import errno
import os

from pydiskimg.errors import StorageError, storage_error

_DEVICES = "/dev"
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a name to compare with


def resolved_new_name(path: str) -> str:
    """Return the absolute path of the file that path names, symlinks followed, also one that leads to nothing yet.

    Raises StorageError for an empty path, one that can only name a directory ("x/", "x/."), and one whose directory
    does not exist.
    """
    if not path:
        raise StorageError("'' is not a path for a new file", errno=errno.ENOENT, filename="")
    if os.path.basename(path) in ("", ".", ".."):
        raise StorageError(f"{path}: names a directory; expected the name of a file", errno=errno.EISDIR, filename=path)
    try:
        # realpath() drops "x/.." without a look at x, which a system call would say is missing.
        os.stat(os.path.dirname(path) or ".")
        return os.path.realpath(path)
    except OSError as error:
        raise storage_error(error, path, "cannot create") from error


def refuse_among_devices(directory: int, name: str) -> None:
    """Raise StorageError where a file in the open directory would lie among devices; name is its absolute path.

    A device's name that is misspelt would become a file in memory. devtmpfs calls itself tmpfs, so it is known by being
    the file system that /dev is on, wherever else that is mounted; /dev/shm is for files.
    """
    parent = os.path.dirname(name)
    if _is_below(parent, _SHARED_MEMORY):
        return
    try:
        devices = os.stat(_DEVICES).st_dev
    except OSError:  # a chroot that has none
        return
    own_file_system = devices != os.stat("/").st_dev
    if os.fstat(directory).st_dev == devices and (own_file_system or _is_below(parent, _DEVICES)):
        raise StorageError(
            f"{name}: is not a device, and no file is made among the devices of {parent}; check the name",
            errno=errno.ENODEV,
            filename=name,
        )


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")
