# SPDX-License-Identifier: MIT
"""The first steps of a child process: it ends with its parent, and holds none of its parent's descriptors."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress

from pydiskimg.linux import libc

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Make the kernel kill this process when the thread of parent that started it ends; at once if it has ended."""
    libc.call("prctl", ctypes.c_int(_PR_SET_PDEATHSIG), ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def close_all_descriptors() -> None:
    """Close every descriptor, including the standard ones."""
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # /proc is not mounted
        numbers = list(range(1024))
    for number in numbers:
        with suppress(OSError):
            os.close(number)
