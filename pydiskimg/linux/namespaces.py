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
    """Give the calling thread, and all that it starts from now on, namespaces of its own (CLONE_ flags)."""
    libc.call("unshare", flags)


def mount_namespace() -> str:
    """Return the kernel's name of the calling thread's mount namespace: mnt:[4026531840]."""
    return os.readlink("/proc/thread-self/ns/mnt")


def in_user_namespace() -> bool:
    """True in a user namespace other than the first: there the kernel mounts no disk, with any privileges."""
    try:
        return os.stat("/proc/self/ns/user").st_ino != _INITIAL_USER_NAMESPACE
    except FileNotFoundError:  # a kernel without user namespaces
        return False


@contextmanager
def at_root_of_namespace() -> Iterator[None]:
    """Make "/" the root of the thread's mount namespace while the context lasts, as if chroot(2) had never been called.

    Root and working directory are restored afterwards. The thread must not share them with another one (unshare() with
    CLONE_NEWNS ensures that), and must be the main thread. Needs CAP_SYS_ADMIN, CAP_SYS_CHROOT and Linux 5.8.
    """
    root, here = (os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in ("/", "."))
    process = os.pidfd_open(os.getpid())
    try:
        # enters the namespace that the thread is in: that changes only root and directory
        libc.call("setns", process, CLONE_NEWNS)
        try:
            yield
        finally:
            os.fchdir(root)
            os.chroot(".")
            os.fchdir(here)
    finally:
        for fd in (process, here, root):
            os.close(fd)
