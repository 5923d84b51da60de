# SPDX-License-Identifier: MIT
"""What an XFS superblock asks for that is not on its own device, or costs the kernel memory (xfs_sb.c, xfs_ag.c).

Linux opens no device by itself for XFS: a log or a realtime part elsewhere has to be given by mount options, which we
do not give. What it says without them does not tell what is wrong.
"""

from __future__ import annotations

import struct

from pydiskimg.fs.probe.xfs import MAGIC
from pydiskimg.host.before_mount.reading import Reader

# XFS Algorithms & Data Structures, "Superblocks"; big-endian
SUPERBLOCK = struct.Struct(
    ">"
    "4s"  #    0  sb_magicnum
    "4x"  #    4  sb_blocksize
    "8x"  #    8  sb_dblocks
    "Q"  #    16  sb_rblocks       of the realtime device
    "Q"  #    24  sb_rextents
    "16x"  #  32  sb_uuid
    "Q"  #    48  sb_logstart      0: the log is on another device
    "32x"  #  56  sb_rootino, sb_rbmino, sb_rsumino, sb_rextsize, sb_agblocks
    "I"  #    88  sb_agcount
)
assert SUPERBLOCK.size == 92

# The kernel keeps 1 to 2 KiB for each. An image of 2 GiB has 4 of 512 MiB, which reach 64 TiB with so many.
GROUP_LIMIT = 1 << 17


def refusal(read: Reader, read_only: bool) -> str | None:  # noqa: ARG001 - nothing of it depends on that
    """Return why the file system must not be mounted; None when it may be."""
    raw = read(0, SUPERBLOCK.size)
    if len(raw) < SUPERBLOCK.size:
        return None
    magic, blocks, extents, log_start, groups = SUPERBLOCK.unpack(raw)
    if magic != MAGIC:
        return None
    if log_start == 0:
        return "its log is on another device; one with an internal log is expected"
    if blocks or extents:
        return "it has a realtime device; one without is expected"
    if groups > GROUP_LIMIT:
        return (
            f"it has {groups} allocation groups, at most {GROUP_LIMIT} are accepted, because the kernel keeps "
            "each in memory"
        )
    return None
