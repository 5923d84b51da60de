# SPDX-License-Identifier: MIT
"""The C library with errno checked: every failure is an OSError."""

from __future__ import annotations

import ctypes
import os

# use_errno keeps a copy of errno for each thread; CDLL (not PyDLL) releases the interpreter lock during the call.
_libc = ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: object) -> int:
    """Call a C function that returns -1 on failure and return its result.

    Arguments are ctypes values, bytes (char *) or None (NULL); a plain int is passed as a C int, so 64-bit
    arguments must be wrapped by the caller. Raises OSError with errno set.
    """
    result: int = getattr(_libc, function)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(number: int, *arguments: object) -> int:
    """Make a system call that the C library does not wrap; errors as for call()."""
    return call("syscall", ctypes.c_long(number), *arguments)
