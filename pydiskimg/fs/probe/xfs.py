# SPDX-License-Identifier: MIT
"""XFS, versions 4 and 5 (XFS Algorithms & Data Structures, "Superblocks"); big-endian."""

from __future__ import annotations

from pydiskimg.crc32c import crc32c
from pydiskimg.fs.probe.kind import FileSystemKind, label_text, uuid_text
from pydiskimg.protocols import Source
from pydiskimg.records import Record
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

MAGIC = b"XFSB"

SUPERBLOCK = Record("xfs_dsb", ">", 264, """
    000 4s  sb_magicnum
    004 I   sb_blocksize        bytes
    008 Q   sb_dblocks
    010 Q   sb_rblocks          of the realtime device
    018 Q   sb_rextents
    020 16s sb_uuid
    030 Q   sb_logstart         0: the log is on another device
    038 Q   sb_rootino
    040 Q   sb_rbmino
    048 Q   sb_rsumino
    050 I   sb_rextsize         blocks
    054 I   sb_agblocks
    058 I   sb_agcount
    05c I   sb_rbmblocks
    060 I   sb_logblocks
    064 H   sb_versionnum       low four bits: the version
    066 H   sb_sectsize         bytes
    068 H   sb_inodesize        bytes
    06a H   sb_inopblock
    06c 12s sb_fname
    078 B   sb_blocklog
    079 B   sb_sectlog
    07a B   sb_inodelog
    07b B   sb_inopblog
    07c B   sb_agblklog
    07d B   sb_rextslog
    07e B   sb_inprogress
    07f B   sb_imax_pct
    080 Q   sb_icount           inodes that are laid out
    088 Q   sb_ifree            those of them that are free
    090 Q   sb_fdblocks         free blocks
    098 60s sb_frextents        to sb_features_compat
    0d4 I   sb_features_ro_compat  version 5
    0d8 8s  sb_features_incompat   and sb_features_log_incompat
    0e0 4s  sb_crc              version 5; little-endian, of the sector with this field zero
    0e4 I   sb_spino_align
    0e8 Q   sb_pquotino
    0f0 Q   sb_lsn
    0f8 16s sb_meta_uuid
""")  # fmt: skip


def probe(_source: Source, head: bytes) -> FileSystemKind | None:
    """Return the XFS whose superblock is in head, the first bytes of the source."""
    if len(head) < 512 or not head.startswith(MAGIC):
        return None
    fields = SUPERBLOCK.unpack(head)
    if not _is_plausible(fields):
        return None
    if fields["sb_versionnum"] & 0xF == 5 and not _checksum_holds(head, fields["sb_sectsize"]):
        return None
    return FileSystemKind("xfs", uuid_text(fields["sb_uuid"]), label_text(fields["sb_fname"]))


def _is_plausible(fields: dict[str, Any]) -> bool:
    """True for a superblock rather than four letters that happen to be the magic: libblkid checks these fields."""
    blocks, group, groups = fields["sb_dblocks"], fields["sb_agblocks"], fields["sb_agcount"]
    block, block_log = fields["sb_blocksize"], fields["sb_blocklog"]
    inode, inode_log = fields["sb_inodesize"], fields["sb_inodelog"]
    return bool(
        512 <= fields["sb_sectsize"] == 1 << fields["sb_sectlog"] <= 32768
        and 512 <= block == 1 << block_log <= 65536
        and 256 <= inode == 1 << inode_log <= 2048
        and block_log - inode_log == fields["sb_inopblog"]
        and 4096 <= fields["sb_rextsize"] * block <= 1 << 30
        and fields["sb_imax_pct"] <= 100
        and group > 0
        and 0 < blocks <= groups * group
        and blocks > (groups - 1) * group
    )


def _checksum_holds(head: bytes, sector: int) -> bool:
    crc = SUPERBLOCK.slice_of("sb_crc")
    covered = head[: crc.start] + bytes(4) + head[crc.stop : sector]
    return len(covered) == sector and crc32c(covered) ^ 0xFFFFFFFF == int.from_bytes(head[crc], "little")
