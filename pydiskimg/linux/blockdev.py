# SPDX-License-Identifier: MIT
"""Block devices: recognising their nodes, and their ioctls (linux/fs.h). All sizes are bytes."""

from __future__ import annotations

import fcntl
import os
import stat
import struct

from pydiskimg.linux.fileio import device_directory, system_text

BLKGETSIZE64 = 0x80081272
BLKSSZGET = 0x1268
BLKZEROOUT = 0x127F
BLKFLSBUF = 0x1261
BLKROGET = 0x125E
BLKRRPART = 0x125F


def is_block_device(path: str | os.PathLike[str]) -> bool:
    """True when path names a block device; False if it does not exist or cannot be examined."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def open_kernel_node(fd: int) -> int | None:
    """Open the kernel's own node of the block device open on fd for reading; the caller closes it.

    Return None when fd is open on that node, or when there is none. Locks belong to a node, and mknod(2) can make other
    nodes of the same device.
    """
    status = os.fstat(fd)
    try:
        lines = system_text(f"{device_directory(status.st_rdev)}/uevent").splitlines()
        name = next(line.partition("=")[2] for line in lines if line.startswith("DEVNAME="))
        node = os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, StopIteration):
        return None
    found = os.fstat(node)
    same_device = stat.S_ISBLK(found.st_mode) and found.st_rdev == status.st_rdev
    if same_device and (found.st_dev, found.st_ino) != (status.st_dev, status.st_ino):
        return node
    os.close(node)
    return None


def device_size(fd: int) -> int:
    """Return the size of the block device in bytes."""
    return int(struct.unpack("=Q", fcntl.ioctl(fd, BLKGETSIZE64, bytes(8)))[0])


def logical_sector_size(fd: int) -> int:
    """Return the logical sector size in bytes: the unit of partition tables, and the alignment of offsets in ioctls."""
    return int(struct.unpack("=i", fcntl.ioctl(fd, BLKSSZGET, bytes(4)))[0])


def read_partitions_again(fd: int) -> bool:
    """Make the kernel read the device's partition table again; False if it does not support partitions on it."""
    try:
        fcntl.ioctl(fd, BLKRRPART)
    except OSError:
        return False
    return True


def can_discard(fd: int) -> bool:
    """True when the block device reports that it can discard blocks; False also if /sys does not tell."""
    device = os.path.realpath(device_directory(os.fstat(fd).st_rdev))
    for directory in (device, os.path.dirname(device)):  # a partition has no queue of its own
        try:
            return int(system_text(f"{directory}/queue/discard_max_bytes")) > 0
        except (OSError, ValueError):
            continue
    return False


def zero_out(fd: int, offset: int, length: int) -> None:
    """Make [offset, offset + length) read as zero; the kernel writes zeros if the device has no command for that.

    Both must be multiples of the logical sector size. On thin storage this allocates.
    """
    fcntl.ioctl(fd, BLKZEROOUT, struct.pack("=QQ", offset, length))


def is_read_only(fd: int) -> bool:
    """True when the kernel refuses every write to the device, even through a writable descriptor."""
    return bool(struct.unpack("=i", fcntl.ioctl(fd, BLKROGET, bytes(4)))[0])


def flush_buffers(fd: int) -> None:
    """Write back and drop the device's page cache."""
    fcntl.ioctl(fd, BLKFLSBUF)
