# SPDX-License-Identifier: MIT
"""unshare(2), setns(2) and the identity of namespaces; failures are OSError."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pydiskimg.linux import libc

CLONE_NEWNS = 0x00020000
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # PROC_USER_INIT_INO


def unshare(flags: int) -> None:
    """Give the calling thread, and what it starts from now on, namespaces of its own (CLONE_ flags)."""
    libc.call("unshare", flags)


def mount_namespace() -> str:
    """Return what the kernel calls the calling thread's mount namespace: mnt:[4026531840]."""
    return os.readlink("/proc/thread-self/ns/mnt")


def in_user_namespace() -> bool:
    """True in another user namespace than the first: there the kernel mounts no disk, whatever the privileges."""
    try:
        return os.stat("/proc/self/ns/user").st_ino != _INITIAL_USER_NAMESPACE
    except FileNotFoundError:  # a kernel without them
        return False


@contextmanager
def at_root_of_namespace() -> Iterator[None]:
    """Let "/" be the root of the calling thread's mount namespace while the context lasts, as if chroot(2) never was.

    Root and working directory are as before afterwards. The thread must share them with no other one, which unshare()
    with CLONE_NEWNS sees to, and be the main thread. Needs CAP_SYS_ADMIN, CAP_SYS_CHROOT and Linux 5.8.
    """
    root, here = (os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in ("/", "."))
    process = os.pidfd_open(os.getpid())
    try:
        libc.call("setns", process, CLONE_NEWNS)  # to the namespace we are in: that changes root and directory only
        try:
            yield
        finally:
            os.fchdir(root)
            os.chroot(".")
            os.fchdir(here)
    finally:
        for fd in (process, here, root):
            os.close(fd)
