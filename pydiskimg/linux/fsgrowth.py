# SPDX-License-Identifier: MIT
"""ioctls that grow mounted file systems (xfs_fs.h, linux/btrfs.h); failures are OSError.

fd is any open file or directory of the file system. The callers make sure that the size does not shrink.
"""

from __future__ import annotations

import fcntl

from pydiskimg.records import Record

XFS_IOC_FSGEOMETRY_V1 = 0x80705864
XFS_IOC_FSGROWFSDATA = 0x4010586E
BTRFS_IOC_RESIZE = 0x50009403
BTRFS_IOC_FS_INFO = 0x8400941F

# All structures are in the machine's byte order.
XFS_GEOMETRY = Record("xfs_fsop_geom_v1", "=", 112, """
    00 I   blocksize    bytes
    04 24s rtextsize    to inodesize
    1c I   imaxpct      percent of the space that inodes may take
    20 Q   datablocks
    28 72s rtblocks     and all after it
""")  # fmt: skip
XFS_GROWTH = Record("xfs_growfs_data", "=", 16, """
    0 Q  newblocks
    8 I  imaxpct
    c 4s padding
""")  # fmt: skip
BTRFS_FS_INFO = Record("btrfs_ioctl_fs_info_args", "=", 1024, """
    00 Q     max_id       the highest number of a device
    08 Q     num_devices
    10 1008s fsid         and all after it
""")  # fmt: skip
BTRFS_RESIZE = Record("btrfs_ioctl_vol_args", "=", 4096, """
    0 q     fd            not used
    8 4088s name          DEVICE:SIZE
""")  # fmt: skip


def xfs_geometry(fd: int) -> tuple[int, int, int]:
    """Return the block size (bytes), the number of data blocks, and the percentage of space that inodes may take."""
    fields = XFS_GEOMETRY.unpack(fcntl.ioctl(fd, XFS_IOC_FSGEOMETRY_V1, bytes(XFS_GEOMETRY.size)))
    return fields["blocksize"], fields["datablocks"], fields["imaxpct"]


def grow_xfs(fd: int, blocks: int, percent: int) -> None:
    """Grow to blocks (of the file system's own size); percent is the inodes' maximal share, changed or not."""
    fcntl.ioctl(fd, XFS_IOC_FSGROWFSDATA, XFS_GROWTH.pack(newblocks=blocks, imaxpct=percent))


def btrfs_devices(fd: int) -> tuple[int, int]:
    """Return how many devices the file system has, and the highest device number."""
    fields = BTRFS_FS_INFO.unpack(fcntl.ioctl(fd, BTRFS_IOC_FS_INFO, bytes(BTRFS_FS_INFO.size)))
    return fields["num_devices"], fields["max_id"]


def grow_btrfs(fd: int, device: int) -> bool:
    """Grow the file system on one of its devices to the end of that device; False when a balance is running."""
    # btrfs reports that by a positive return value, not by an errno; Python returns it for a mutable argument only.
    request = bytearray(BTRFS_RESIZE.pack(name=f"{device}:max".encode("ascii")))
    code: int = fcntl.ioctl(fd, BTRFS_IOC_RESIZE, request, True)
    return code == 0
