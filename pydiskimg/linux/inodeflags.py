# SPDX-License-Identifier: MIT
"""Read and set the inode flags that chattr(1) sets: linux/fs.h, FS_IOC_GETFLAGS and FS_IOC_SETFLAGS."""

from __future__ import annotations

import fcntl
import struct

# _IOR('f', 1, long) and _IOW('f', 2, long); the kernel reads and writes an int nevertheless.
_SIZE = struct.calcsize("l") << 16
FS_IOC_GETFLAGS = 2 << 30 | _SIZE | ord("f") << 8 | 1
FS_IOC_SETFLAGS = 1 << 30 | _SIZE | ord("f") << 8 | 2

FS_SECRM_FL = 0x00000001
FS_UNRM_FL = 0x00000002
FS_SYNC_FL = 0x00000008
FS_IMMUTABLE_FL = 0x00000010
FS_APPEND_FL = 0x00000020
FS_NODUMP_FL = 0x00000040
FS_NOATIME_FL = 0x00000080
FS_JOURNAL_DATA_FL = 0x00004000
FS_NOTAIL_FL = 0x00008000
FS_DIRSYNC_FL = 0x00010000
FS_TOPDIR_FL = 0x00020000

# The flags that a restored file gets back; the others describe how it is stored.
RESTORED_FLAGS = (
    FS_SECRM_FL
    | FS_UNRM_FL
    | FS_SYNC_FL
    | FS_IMMUTABLE_FL
    | FS_APPEND_FL
    | FS_NODUMP_FL
    | FS_NOATIME_FL
    | FS_JOURNAL_DATA_FL
    | FS_NOTAIL_FL
    | FS_DIRSYNC_FL
    | FS_TOPDIR_FL
)


def get_flags(fd: int) -> int:
    """Return the flags of the open file or directory. Raises OSError; ENOTTY if the file system has none."""
    buffer = bytearray(8)
    fcntl.ioctl(fd, FS_IOC_GETFLAGS, buffer)
    return int(struct.unpack_from("=I", buffer)[0])


def set_flags(fd: int, flags: int) -> None:
    """Set the flags. Raises OSError; EOPNOTSUPP for a flag that the file system does not support."""
    fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("=II", flags, 0))
