# SPDX-License-Identifier: MIT
"""openat2(2): open a path without leaving a directory, even if symlinks in the path lead out of it."""

from __future__ import annotations

import ctypes
import errno
import os

from pydiskimg.errors import StorageError
from pydiskimg.linux import libc
from pydiskimg.text import quoted

# linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# The same number on every architecture except alpha and mips, where it is not a system call and gives ENOSYS.
_NUMBER = 437

# A rename anywhere on the machine while ".." is resolved makes the kernel return EAGAIN. A process that renames in a
# loop must not keep this one here forever.
_ATTEMPTS = 128


class _OpenHow(ctypes.Structure):
    """struct open_how; the kernel refuses bits that it does not know."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


assert ctypes.sizeof(_OpenHow) == 24


def openat2(dir_fd: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """Open path from the directory dir_fd and return a new descriptor, which the caller owns.

    flags are those of os.open(); O_CLOEXEC is always added. mode is for O_CREAT and O_TMPFILE only (the umask applies);
    resolve combines RESOLVE_ constants. With RESOLVE_IN_ROOT, dir_fd is "/" for absolute paths, absolute symlinks and
    "..".

    Raises OSError with errno and path: ELOOP for a symlink that resolve forbids, EXDEV for a path that leaves the
    directory or the mount, EAGAIN when renames on the system kept interrupting the call, EINVAL for a path with a null
    byte. Raises StorageError (ENOSYS) on a kernel before 5.6.
    """
    name = os.fsencode(path)
    if b"\0" in name:
        raise OSError(errno.EINVAL, "a path cannot hold a null byte", path)
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    attempts = 0
    while True:
        try:
            return _openat2(dir_fd, name, how)
        except InterruptedError:  # a signal arrived; its Python handler has run, and may have raised
            continue
        except OSError as error:
            attempts += 1
            if error.errno == errno.EAGAIN and attempts < _ATTEMPTS:
                continue
            raise _named(error, path) from None


def _openat2(dir_fd: int, name: bytes, how: _OpenHow) -> int:
    size = ctypes.c_size_t(ctypes.sizeof(how))
    return libc.syscall(_NUMBER, ctypes.c_int(dir_fd), ctypes.c_char_p(name), ctypes.byref(how), size)


def _named(error: OSError, path: str | bytes) -> OSError:
    if error.errno == errno.ENOSYS:
        text = f"{quoted(path)}: cannot be opened safely: this kernel lacks openat2(); Linux 5.6 is needed"
        return StorageError(text, errno=errno.ENOSYS, filename=os.fsdecode(path))
    return OSError(error.errno, error.strerror, path)
