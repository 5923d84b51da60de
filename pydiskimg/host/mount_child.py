# SPDX-License-Identifier: MIT
"""mount(2) with a time limit: in a child process that can be abandoned (ADR 0074).

A guest's data (journals, lists of orphans) decides how long the kernel works before mount(2) returns. Most of that work
cannot be interrupted by a signal, and a thread in it would keep its process from ending.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
import warnings
from contextlib import suppress
from typing import NoReturn

from pydiskimg.linux import mounts
from pydiskimg.linux.processes import close_all_descriptors, die_with

# A log of 2 GiB, the largest of XFS, takes minutes on slow disks. Ganeti waits longer than this for each verb.
MOUNT_SECONDS = 900.0
# Seconds between SIGKILL and abandoning the child.
_KILL_SECONDS = 5.0
_NO_ERRNO = 255


class MountTimeoutError(Exception):
    """mount(2) has not returned; stopped tells whether the kernel gave up, or is still working."""

    def __init__(self, seconds: float, *, stopped: bool) -> None:
        super().__init__(f"not mounted after {seconds:.0f} seconds")
        self.seconds = seconds
        self.stopped = stopped


def mount_in_time(source: str, target: str, fs_type: str, flags: int, options: str) -> None:
    """Mount as mount(2) does, in this process's mount namespace, within MOUNT_SECONDS.

    Raises OSError as mount(2), MountTimeoutError when it takes longer. After that nothing here waits for the kernel:
    the child holds no descriptor, and a mount that succeeds too late disappears with the namespace. Whichever error is
    raised, the mount may have been made in the last instant.
    """
    seconds, status = MOUNT_SECONDS, None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the child keeps it that way
    try:
        child, pidfd = _start(source, target, fs_type, flags, options)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            status = _ended(child, pidfd, seconds)
        finally:
            late = status is None
            if late:  # too late, or a signal's handler has raised
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                status = _ended(child, pidfd, _KILL_SECONDS)
            os.close(pidfd)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if late and status != 0:
        raise MountTimeoutError(seconds, stopped=status is not None)
    if status is None or status < 0:  # another process has killed it
        raise OSError(errno.EINTR, os.strerror(errno.EINTR))
    if status == _NO_ERRNO:
        raise OSError(0, "the process that was to mount it failed")
    if status:
        raise OSError(status, os.strerror(status))


def _ended(child: int, pidfd: int, seconds: float) -> int | None:
    """Return the child's exit status, negative for a signal's number; None if it has not ended after seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + seconds
    while not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        if time.monotonic() >= deadline:
            return None
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _start(source: str, target: str, fs_type: str, flags: int, options: str) -> tuple[int, int]:
    """Return the child and a pidfd of it. Raises OSError; the child is then killed, but not waited for."""
    child = _fork(source, target, fs_type, flags, options)
    try:
        return child, os.pidfd_open(child)
    except OSError:
        os.kill(child, signal.SIGKILL)
        raise


def _fork(source: str, target: str, fs_type: str, flags: int, options: str) -> int:
    parent = os.getpid()
    with warnings.catch_warnings():
        # Python warns since 3.12, if there are threads. Their locks do not matter to a child that only makes system
        # calls.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _mount_and_exit(parent, source, target, fs_type, flags, options)
    return child


def _mount_and_exit(parent: int, source: str, target: str, fs_type: str, flags: int, options: str) -> NoReturn:
    """Run as the child: hold nothing that others wait for, die with the parent, mount, and exit with the errno.

    Signals other than SIGKILL are blocked: a signal would interrupt the kernel, and its handler could raise and
    continue with the parent's code.
    """
    status = _NO_ERRNO
    with suppress(BaseException):
        close_all_descriptors()
        die_with(parent)
        try:
            mounts.mount(source, target, fs_type, flags, options)
            status = 0
        except OSError as error:
            status = error.errno or _NO_ERRNO
    os._exit(status)
