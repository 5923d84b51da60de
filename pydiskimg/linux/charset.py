# SPDX-License-Identifier: MIT
"""The locale of the calling thread alone: uselocale(3) leaves the process's locale as it is."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_libc = ctypes.CDLL(None, use_errno=True)
_libc.newlocale.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
_libc.newlocale.restype = ctypes.c_void_p
_libc.uselocale.argtypes = [ctypes.c_void_p]
_libc.uselocale.restype = ctypes.c_void_p
_libc.freelocale.argtypes = [ctypes.c_void_p]
_libc.freelocale.restype = None

_LC_CTYPE_MASK = 1  # 1 << LC_CTYPE, which is 0 in glibc and musl


@contextmanager
def c_locale() -> Iterator[None]:
    """Run the block with LC_CTYPE=C in this thread: text is bytes. Every system has this locale."""
    locale = _libc.newlocale(_LC_CTYPE_MASK, b"C", None)
    if not locale:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    before = _libc.uselocale(locale)
    try:
        yield
    finally:
        _libc.uselocale(before)
        _libc.freelocale(locale)
