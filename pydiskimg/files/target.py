# SPDX-License-Identifier: MIT
"""The directory that the files of an archive, a dump or another directory are put into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pydiskimg.errors import storage_error

NEEDS_ROOT = "; restoring owners, devices and trusted attributes needs root"


@contextmanager
def target_directory(directory: str | int, *, doing: str) -> Iterator[int]:
    """Give a descriptor of the directory: a path, or a descriptor, which stays open.

    doing is the verb for the message that a path cannot be opened: a StorageError.
    """
    if isinstance(directory, int):
        yield directory
        return
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise storage_error(error, directory, f"cannot open the directory to {doing} into") from error
    try:
        yield fd
    finally:
        os.close(fd)
