# SPDX-License-Identifier: MIT
"""Whether proc(5) is mounted: a descriptor has a path only there, and it alone tells of mounts and processes."""

from __future__ import annotations

import errno
import os

from pydiskimg.errors import StorageError


def require_proc() -> None:
    """Raise StorageError, with a sentence that says what to do, where /proc is not mounted (a bare chroot)."""
    if not os.path.exists("/proc/self/fd"):
        text = "/proc: is not mounted; mount it (mount -t proc proc /proc)"
        raise StorageError(text, errno=errno.ENOENT, filename="/proc")
