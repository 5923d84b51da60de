# SPDX-License-Identifier: MIT
"""Check that proc(5) is mounted: only there does a descriptor have a path, and mounts and processes are listed."""

from __future__ import annotations

import errno
import os

from pydiskimg.errors import StorageError


def require_proc() -> None:
    """Raise StorageError, with advice, if /proc is not mounted (a bare chroot)."""
    if not os.path.exists("/proc/self/fd"):
        text = "/proc: is not mounted; mount it (mount -t proc proc /proc)"
        raise StorageError(text, errno=errno.ENOENT, filename="/proc")
