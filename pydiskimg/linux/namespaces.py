# SPDX-License-Identifier: MIT
"""unshare(2) and the identity of namespaces; failures are OSError."""

from __future__ import annotations

import os

from pydiskimg.linux import libc

CLONE_NEWNS = 0x00020000


def unshare(flags: int) -> None:
    """Give the calling thread, and what it starts from now on, namespaces of its own (CLONE_ flags)."""
    libc.call("unshare", flags)


def mount_namespace() -> str:
    """Return what the kernel calls the calling thread's mount namespace: mnt:[4026531840]."""
    return os.readlink("/proc/thread-self/ns/mnt")
