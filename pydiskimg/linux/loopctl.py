# SPDX-License-Identifier: MIT
"""ioctls of loop devices (linux/loop.h). All sizes are bytes; failures are OSError."""

from __future__ import annotations

import fcntl
import struct

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LOOP_GET_STATUS64 = 0x4C05

LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4

# struct loop_info64, in the machine's byte order
LOOP_INFO64 = struct.Struct(
    "="
    "Q"  #     0  lo_device            of the backing file's file system
    "Q"  #     8  lo_inode
    "Q"  #    16  lo_rdevice           of the backing file when that is a device
    "Q"  #    24  lo_offset            bytes
    "Q"  #    32  lo_sizelimit         bytes; 0: to the end
    "I"  #    40  lo_number
    "I"  #    44  lo_encrypt_type      0; the kernel has no encryption here any more
    "I"  #    48  lo_encrypt_key_size  0
    "I"  #    52  lo_flags
    "64s"  #  56  lo_file_name         what programs without /sys show
    "64s"  # 120  lo_crypt_name
    "32s"  # 184  lo_encrypt_key
    "16s"  # 216  lo_init
)
assert LOOP_INFO64.size == 232

# struct loop_config, in the machine's byte order
LOOP_CONFIG = struct.Struct(
    "="
    "I"  #     0  fd
    "I"  #     4  block_size           bytes
    "232s"  #  8  info                 struct loop_info64
    "64x"  # 240  reserved
)
assert LOOP_CONFIG.size == 304


class LoopStatus:
    """What a configured loop device says of itself. offset and size_limit are bytes; size_limit 0 is to the end.

    backing is what it shows: (st_dev, st_ino) of a file, (st_rdev, None) of a block device, as os.stat() has them.
    """

    __slots__ = ("backing", "flags", "offset", "size_limit")  # dataclasses take longer to import than a disk to open

    def __init__(self, *, offset: int, size_limit: int, flags: int, backing: tuple[int, int | None]) -> None:
        self.offset = offset
        self.size_limit = size_limit
        self.flags = flags
        self.backing = backing


def get_free(control_fd: int) -> int:
    """Return the number of a loop device that is free now; control_fd is /dev/loop-control.

    The device is made when there is none. Nothing reserves it: configure() by somebody else may come first.
    """
    return fcntl.ioctl(control_fd, LOOP_CTL_GET_FREE)


def configure(
    loop_fd: int, backing_fd: int, *, offset: int, size_limit: int, block_size: int, flags: int, file_name: bytes
) -> None:
    """Give an unbound loop device its file, range, sector size and flags in one step (Linux 5.8).

    EBUSY: it is bound already. EINVAL: before Linux 5.8, or one of the values is no good. The kernel adds
    LO_FLAGS_READ_ONLY when either descriptor is not open for writing, and cuts the range to the file's end.
    """
    info = LOOP_INFO64.pack(
        0, 0, 0, offset, size_limit, 0, 0, 0, flags, file_name[:63], b"", b"", b""
    )  # 63: it stays a C string
    fcntl.ioctl(loop_fd, LOOP_CONFIGURE, LOOP_CONFIG.pack(backing_fd, block_size, info))


def get_status(loop_fd: int) -> LoopStatus:
    """Return the device's settings. ENXIO: it is not bound."""
    fields = LOOP_INFO64.unpack(fcntl.ioctl(loop_fd, LOOP_GET_STATUS64, bytes(LOOP_INFO64.size)))
    device, inode, device_below = fields[:3]
    backing = (device_below, None) if device_below else (device, inode)
    return LoopStatus(offset=fields[3], size_limit=fields[4], flags=fields[8], backing=backing)
