# SPDX-License-Identifier: MIT
"""XFS, versions 4 and 5 (XFS Algorithms & Data Structures, "Superblocks"); big-endian."""

from __future__ import annotations

import struct

from pydiskimg.crc32c import crc32c
from pydiskimg.fs.probe.kind import FileSystemKind, label_text, uuid_text
from pydiskimg.protocols import Source

MAGIC = b"XFSB"

SUPERBLOCK = struct.Struct(
    ">"
    "4s"  #    0  sb_magicnum
    "I"  #     4  sb_blocksize    bytes
    "Q"  #     8  sb_dblocks
    "16x"  #  16  sb_rblocks, sb_rextents
    "16s"  #  32  sb_uuid
    "32x"  #  48  sb_logstart, sb_rootino, sb_rbmino, sb_rsumino
    "I"  #    80  sb_rextsize     blocks
    "I"  #    84  sb_agblocks
    "I"  #    88  sb_agcount
    "8x"  #   92  sb_rbmblocks, sb_logblocks
    "H"  #   100  sb_versionnum   low four bits: the version
    "H"  #   102  sb_sectsize     bytes
    "H"  #   104  sb_inodesize    bytes
    "2x"  #  106  sb_inopblock
    "12s"  # 108  sb_fname
    "B"  #   120  sb_blocklog
    "B"  #   121  sb_sectlog
    "B"  #   122  sb_inodelog
    "B"  #   123  sb_inopblog
    "3x"  #  124  sb_agblklog, sb_rextslog, sb_inprogress
    "B"  #   127  sb_imax_pct
)
assert SUPERBLOCK.size == 128
CRC_OFFSET = 224  # sb_crc, version 5; little-endian, of the sector with this field zero


def probe(_source: Source, head: bytes) -> FileSystemKind | None:
    """Return the XFS whose superblock is in head, the first bytes of the source."""
    if len(head) < 512 or not head.startswith(MAGIC):
        return None
    (_, block, blocks, uuid, extent, group, groups, version, sector, inode, name, *logs, percent) = (
        SUPERBLOCK.unpack_from(head)
    )
    block_log, sector_log, inode_log, per_block_log = logs
    plausible = (
        512 <= sector == 1 << sector_log <= 32768
        and 512 <= block == 1 << block_log <= 65536
        and 256 <= inode == 1 << inode_log <= 2048
        and block_log - inode_log == per_block_log
        and 4096 <= extent * block <= 1 << 30
        and percent <= 100
        and group > 0
        and 0 < blocks <= groups * group
        and blocks > (groups - 1) * group
    )
    if not plausible or (version & 0xF == 5 and not _checksum_holds(head, sector)):
        return None
    return FileSystemKind("xfs", uuid_text(uuid), label_text(name))


def _checksum_holds(head: bytes, sector: int) -> bool:
    covered = head[:CRC_OFFSET] + bytes(4) + head[CRC_OFFSET + 4 : sector]
    return len(covered) == sector and crc32c(covered) ^ 0xFFFFFFFF == int.from_bytes(
        head[CRC_OFFSET : CRC_OFFSET + 4], "little"
    )
