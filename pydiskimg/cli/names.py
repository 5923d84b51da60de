# SPDX-License-Identifier: MIT
"""Names on the command line that cannot be meant as they are."""

from __future__ import annotations

import errno
import os

from pydiskimg.errors import StorageError


def require_name(path: str, what: str = "image") -> None:
    """Raise StorageError for an empty name, which an unset shell variable leaves behind; what says whose it is."""
    if not path:
        raise StorageError(f"the name of the {what} is empty", errno=errno.ENOENT, filename=path)


def require_file_name(path: str) -> None:
    """Raise StorageError for an empty name, and for "-" where that is not the name of a file."""
    require_name(path)
    if path == "-" and not os.path.lexists(path):
        raise StorageError(
            "-: only convert reads from a pipe; where standard input is a file, name it /dev/stdin",
            errno=errno.ENOENT,
            filename=path,
        )
