# SPDX-License-Identifier: MIT
"""The directory that the files of an archive, a dump or another directory are put into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pydiskimg.errors import storage_error

NEEDS_ROOT = "; restoring owners, devices and trusted attributes needs root"


@contextmanager
def target_directory(directory: str | int, *, doing: str) -> Iterator[tuple[int, str]]:
    """Give a descriptor of the directory, and its name for messages.

    directory is a path, or a descriptor, which stays open. doing is the verb for the message that a path cannot be
    opened: a StorageError.
    """
    if isinstance(directory, int):
        yield directory, _shown(f"/proc/self/fd/{directory}")
        return
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise storage_error(error, directory, f"cannot open the directory to {doing} into") from error
    try:
        yield fd, _shown(directory)
    finally:
        os.close(fd)


def _shown(where: str) -> str:
    """Return what a descriptor's path leads to; whether it can still be read does not matter."""
    if not where.startswith("/proc/self/fd/"):
        return where
    try:
        return os.readlink(where)
    except OSError:
        return where
