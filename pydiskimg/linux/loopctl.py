# SPDX-License-Identifier: MIT
"""ioctls of loop devices (linux/loop.h), in the machine's byte order. All sizes are bytes; failures are OSError."""

from __future__ import annotations

import fcntl

from pydiskimg.records import Record

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LOOP_GET_STATUS64 = 0x4C05

LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4

LOOP_INFO64 = Record("loop_info64", "=", 232, """
    00 Q   lo_device            of the backing file's file system
    08 Q   lo_inode
    10 Q   lo_rdevice           of the backing file when that is a device
    18 Q   lo_offset            bytes
    20 Q   lo_sizelimit         bytes; 0: to the end
    28 I   lo_number
    2c I   lo_encrypt_type      0; the kernel has no encryption here any more
    30 I   lo_encrypt_key_size  0
    34 I   lo_flags
    38 64s lo_file_name         what programs without /sys show
    78 64s lo_crypt_name
    b8 32s lo_encrypt_key
    d8 16s lo_init
""")  # fmt: skip
LOOP_CONFIG = Record("loop_config", "=", 304, """
    00  I    fd
    04  I    block_size         bytes
    08  232s info               LOOP_INFO64
    f0  64s  reserved
""")  # fmt: skip


class LoopStatus:
    """The settings of a configured loop device. offset and size_limit are bytes; size_limit 0 means to the end.

    backing is the file below it: (st_dev, st_ino) of a file, (st_rdev, None) of a block device, as from os.stat().
    """

    __slots__ = ("backing", "flags", "offset", "size_limit")  # importing dataclasses takes longer than opening a disk

    def __init__(self, *, offset: int, size_limit: int, flags: int, backing: tuple[int, int | None]) -> None:
        self.offset = offset
        self.size_limit = size_limit
        self.flags = flags
        self.backing = backing


def get_free(control_fd: int) -> int:
    """Return the number of a loop device that is free now; control_fd is /dev/loop-control.

    The kernel makes a device if none is free. The number is not reserved: another process may configure it first.
    """
    return fcntl.ioctl(control_fd, LOOP_CTL_GET_FREE)


def configure(
    loop_fd: int, backing_fd: int, *, offset: int, size_limit: int, block_size: int, flags: int, file_name: bytes
) -> None:
    """Bind a loop device to a file, with its range, sector size and flags, in one step (Linux 5.8).

    EBUSY: it is already bound. EINVAL: Linux is older than 5.8, or a value is not valid. The kernel adds
    LO_FLAGS_READ_ONLY when either descriptor is not open for writing, and cuts the range at the file's end.
    """
    name = file_name[:63]  # the kernel wants a NUL at the end
    info = LOOP_INFO64.pack(lo_offset=offset, lo_sizelimit=size_limit, lo_flags=flags, lo_file_name=name)
    fcntl.ioctl(loop_fd, LOOP_CONFIGURE, LOOP_CONFIG.pack(fd=backing_fd, block_size=block_size, info=info))


def get_status(loop_fd: int) -> LoopStatus:
    """Return the device's settings. ENXIO: it is not bound."""
    fields = LOOP_INFO64.unpack(fcntl.ioctl(loop_fd, LOOP_GET_STATUS64, bytes(LOOP_INFO64.size)))
    device_below = fields["lo_rdevice"]
    return LoopStatus(
        offset=fields["lo_offset"],
        size_limit=fields["lo_sizelimit"],
        flags=fields["lo_flags"],
        backing=(device_below, None) if device_below else (fields["lo_device"], fields["lo_inode"]),
    )
