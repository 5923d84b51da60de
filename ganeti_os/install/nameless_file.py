# SPDX-License-Identifier: MIT
"""An unnamed file: temporary data in a directory that disappear with the process in any case."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from pydiskimg.errors import StorageError, storage_error
from pydiskimg.linux.procfs import require_proc


@contextmanager
def nameless_file(directory: str, what: str, *, setting: str) -> Iterator[int]:
    """Give a descriptor of a new empty file in directory while the context lasts; /proc/self/fd/N opens it again.

    what describes its contents, setting is the setting with the directory, both for messages. Raises StorageError, also
    when the directory becomes full in the block, whose write errors have the directory as their filename.
    """
    require_proc()
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise storage_error(error, directory, f"cannot keep {what} there temporarily ({setting})") from error
    try:
        yield fd
    except StorageError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename == directory:
            _full(error, directory, what, setting)
        raise
    finally:
        os.close(fd)


def _full(error: StorageError, directory: str, what: str, setting: str) -> NoReturn:
    raise StorageError(
        f"{directory}: has no room for {what}; set {setting} to a directory with enough space; nothing was written to "
        "the disk",
        errno=error.errno,
        filename=directory,
    ) from error


def end_at(fd: int, size: int, directory: str) -> None:
    """Set the file's size, with a hole at its end. Raises StorageError, also for an impossible size."""
    try:
        os.ftruncate(fd, size)
    except (OSError, OverflowError) as error:  # an impossible size
        cause = error if isinstance(error, OSError) else OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        raise storage_error(cause, directory, f"cannot keep a file of {size} bytes there temporarily") from error
