# SPDX-License-Identifier: MIT
"""FICLONERANGE (linux/fs.h): let a range of a file have the blocks of another range, as XFS and btrfs can."""

from __future__ import annotations

import fcntl
from _struct import pack

FICLONERANGE = 0x4020940D


def share_blocks(fd: int, offset: int, source: int, position: int, length: int) -> None:
    """Let [offset, offset + length) of the file fd have the blocks of the file source from position on.

    All three numbers are multiples of the file system's block size. The files then differ again where one of them is
    written. A file grows as needed. Raises OSError: EOPNOTSUPP or EINVAL if the file system cannot do it or has other
    blocks, EXDEV for files of two file systems; some of the range may be shared then.
    """
    fcntl.ioctl(fd, FICLONERANGE, pack("=qQQQ", source, position, length, offset))
