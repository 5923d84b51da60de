# SPDX-License-Identifier: MIT
"""The locks that QEMU places on its open images: single bytes of the file, locked by fcntl(2) ("OFD" locks).

        100                        200
    -----+--+--+--+-----------------+--+--+--+-----
         |  |  |  resize            |  |  |  resize
         |  |  write same contents  |  |  write same contents
         |  write                   |  write
         consistent reading         consistent reading
         held for own operations    held for operations that are not tolerated

All are read locks, so that several programs can hold the same ones. A program that opens an image locks the bytes for
its own operations and for those that it does not tolerate, and then checks the opposite bytes for locks of others. The
bytes need not exist, and the locks do not prevent reading or writing them.

Two bytes that QEMU does not check are pydiskimg's own: 150 is locked by each of its writers, 250 by a reader that does
not tolerate them. A virtual machine may run while such a reader reads.
"""

from __future__ import annotations

import errno
import fcntl
import os
from _struct import Struct  # struct.py only re-exports it

# struct flock, with the machine's alignment: l_type, l_whence, l_start, l_len, l_pid (0 for OFD locks)
_FLOCK = Struct("hhqqi0q")

_USES = 100
_REFUSALS = 200
_READING, _WRITING, _RESIZING = 0, 1, 3
_OURS = 50
_END = 300

# The errors of file systems that do not support such locks: network and FUSE file systems.
_CANNOT = frozenset({errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})


def lock_as_writer(fd: int) -> bool:
    """Hold the locks of a writer that tolerates readers only, until the open file of fd is closed.

    Returns False when another program writes, or does not tolerate a writer. A QEMU that tolerates one (qemu-img -U)
    continues to read. A file system without such locks excludes no program. Raises OSError for other failures; fd must
    be open for reading.
    """
    try:
        # Placed before those of others are checked: when two programs come at once, both fail rather than both succeed.
        set_lock(fd, fcntl.F_RDLCK, _USES + _READING, _RESIZING - _READING + 1)
        set_lock(fd, fcntl.F_RDLCK, _USES + _OURS, 1)
        set_lock(fd, fcntl.F_RDLCK, _REFUSALS + _WRITING, _RESIZING - _WRITING + 1)
        return not (_is_locked(fd, _USES + _WRITING, _REFUSALS) or _is_locked(fd, _REFUSALS, _END))
    except OSError as error:
        if error.errno in _CANNOT:
            return True
        raise


def lock_as_reader(fd: int) -> bool:
    """Exclude pydiskimg's own writers until the open file of fd is closed; other readers and QEMU continue.

    Returns False when a writer has the file. File systems without locks, and errors, are as for lock_as_writer().
    """
    try:
        set_lock(fd, fcntl.F_RDLCK, _REFUSALS + _OURS, 1)
        return not _is_locked(fd, _USES + _OURS, _USES + _OURS + 1)
    except OSError as error:
        if error.errno in _CANNOT:
            return True
        raise


def lock_as_backing_reader(fd: int) -> bool:
    """Hold QEMU's locks for a backing file of an image that is being written, until the open file is closed.

    Other programs may read the file, but not write it. Returns False when another program writes it. File systems
    without locks and errors are as for lock_as_writer().
    """
    try:
        set_lock(fd, fcntl.F_RDLCK, _USES + _READING, 1)
        for refused in (_WRITING, _RESIZING):
            set_lock(fd, fcntl.F_RDLCK, _REFUSALS + refused, 1)
        uses = (_USES + _WRITING, _USES + _RESIZING, _REFUSALS + _READING)
        return not any(_is_locked(fd, byte, byte + 1) for byte in uses)
    except OSError as error:
        if error.errno in _CANNOT:
            return True
        raise


def is_read(fd: int) -> bool:
    """True when another open file holds the locks of lock_as_reader(). Raises OSError."""
    return _is_locked(fd, _REFUSALS + _OURS, _REFUSALS + _OURS + 1)


def lock_holder(fd: int) -> int | None:
    """Return the id of a process that has such locks on the file of fd, if /proc tells (proc(5), fdinfo)."""
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
        status = os.fstat(fd)
        processes = [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    except OSError:
        return None
    # A hard link or another node of a device has another path; btrfs shows another device number than fstat(2).
    inode = f" {os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino} "
    return next((int(process) for process in processes if _holds(process, path, inode)), None)


def set_lock(fd: int, kind: int, start: int, length: int) -> None:
    """Take (F_RDLCK, F_WRLCK) or release (F_UNLCK) the lock on [start, start + length); EAGAIN: others have it."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))


def _is_locked(fd: int, start: int, end: int) -> bool:
    """True when another open file has any lock in [start, end)."""
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, end - start, 0)
    found: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, wanted))[0]
    return found != fcntl.F_UNLCK


def _holds(process: str, path: str, inode: str) -> bool:
    try:
        for name in os.listdir(f"/proc/{process}/fd"):
            with open(f"/proc/{process}/fdinfo/{name}", encoding="ascii", errors="replace") as file:
                locks = [line for line in file if "OFDLCK" in line]
            # By its name only: opening the file itself might block.
            if locks and (inode in locks[0] or os.readlink(f"/proc/{process}/fd/{name}") == path):
                return True
    except OSError:  # the process has ended, or may not be examined
        pass
    return False
