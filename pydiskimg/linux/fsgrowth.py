# SPDX-License-Identifier: MIT
"""ioctls that grow mounted file systems (xfs_fs.h, linux/btrfs.h); failures are OSError.

fd is any open file or directory of the file system. Nothing here shrinks: the callers see to that.
"""

from __future__ import annotations

import fcntl
import struct

XFS_IOC_FSGEOMETRY_V1 = 0x80705864
XFS_IOC_FSGROWFSDATA = 0x4010586E
BTRFS_IOC_RESIZE = 0x50009403
BTRFS_IOC_FS_INFO = 0x8400941F

# struct xfs_fsop_geom_v1, in the machine's byte order
XFS_GEOMETRY = struct.Struct(
    "="
    "I"  #    0  blocksize    bytes
    "24x"  #  4  rtextsize, agblocks, agcount, logblocks, sectsize, inodesize
    "I"  #   28  imaxpct      percent of the space that inodes may take
    "Q"  #   32  datablocks
    "72x"  # 40  what else there is
)
assert XFS_GEOMETRY.size == 112

# struct xfs_growfs_data, in the machine's byte order
XFS_GROWTH = struct.Struct(
    "="
    "Q"  #    0  newblocks
    "I"  #    8  imaxpct
    "4x"  #  12  padding
)
assert XFS_GROWTH.size == 16

# struct btrfs_ioctl_fs_info_args, in the machine's byte order
BTRFS_FS_INFO = struct.Struct(
    "="
    "Q"  #      0  max_id       the highest number of a device
    "Q"  #      8  num_devices
    "1008x"  # 16  what else there is
)
assert BTRFS_FS_INFO.size == 1024

# struct btrfs_ioctl_vol_args, in the machine's byte order
BTRFS_RESIZE = struct.Struct(
    "="
    "q"  #      0  fd           not used
    "4088s"  #  8  name         DEVICE:SIZE
)
assert BTRFS_RESIZE.size == 4096


def xfs_geometry(fd: int) -> tuple[int, int, int]:
    """Return the block size (bytes), the number of data blocks, and the percentage that inodes may take."""
    block_size, percent, blocks = XFS_GEOMETRY.unpack(fcntl.ioctl(fd, XFS_IOC_FSGEOMETRY_V1, bytes(XFS_GEOMETRY.size)))
    return block_size, blocks, percent


def grow_xfs(fd: int, blocks: int, percent: int) -> None:
    """Grow to blocks of the file system's own size; percent is the inodes' share, as it is or another."""
    fcntl.ioctl(fd, XFS_IOC_FSGROWFSDATA, XFS_GROWTH.pack(blocks, percent))


def btrfs_devices(fd: int) -> tuple[int, int]:
    """Return how many devices the file system has, and the highest number of one."""
    highest, count = BTRFS_FS_INFO.unpack(fcntl.ioctl(fd, BTRFS_IOC_FS_INFO, bytes(BTRFS_FS_INFO.size)))
    return count, highest


def grow_btrfs(fd: int, device: int) -> bool:
    """Grow what the file system has on one of its devices to the end of that; False when a balance is in the way."""
    # A positive number of btrfs's own says that, not an errno; Python hands it on for a mutable argument only.
    request = bytearray(BTRFS_RESIZE.pack(0, f"{device}:max".encode("ascii")))
    code: int = fcntl.ioctl(fd, BTRFS_IOC_RESIZE, request, True)
    return code == 0
