# SPDX-License-Identifier: MIT
"""ext2, ext3 and ext4, told apart by their features as libblkid does."""

from __future__ import annotations

from collections.abc import Mapping

from pydiskimg.crc32c import crc32c
from pydiskimg.fs.ext4.features import JOURNAL_DEV
from pydiskimg.fs.ext4.layout import SUPERBLOCK, SUPERBLOCK_MAGIC, SUPERBLOCK_OFFSET
from pydiskimg.fs.probe.kind import FileSystemKind, label_text, uuid_text
from pydiskimg.protocols import Source

_MAX_LOG_BLOCK_SIZE = 6  # 64 KiB
_HAS_JOURNAL = 0x4  # compat
_METADATA_CSUM = 0x400  # ro_compat
_TEST_FILESYS = 0x4  # s_flags: of the time when ext4 was under development

# What the ext2 and ext3 drivers understand; anything else makes it ext4.
_OLD_RO_COMPAT = 0x1 | 0x2 | 0x4  # sparse_super, large_file, btree_dir
_EXT2_INCOMPAT = 0x2 | 0x10  # filetype, meta_bg
_EXT3_INCOMPAT = _EXT2_INCOMPAT | 0x4  # and recover


def probe(_source: Source, head: bytes) -> FileSystemKind | None:
    """Return the kind of ext file system whose superblock is in head, the first bytes of the source."""
    if len(head) < SUPERBLOCK_OFFSET + SUPERBLOCK.size:
        return None
    raw = head[SUPERBLOCK_OFFSET : SUPERBLOCK_OFFSET + SUPERBLOCK.size]
    fields = SUPERBLOCK.unpack(raw)
    if fields["s_magic"] != SUPERBLOCK_MAGIC:
        return None
    if not _is_plausible(fields):
        return None
    compat, incompat, ro_compat, flags = (
        int(fields[name]) for name in ("s_feature_compat", "s_feature_incompat", "s_feature_ro_compat", "s_flags")
    )
    if ro_compat & _METADATA_CSUM and crc32c(raw[: SUPERBLOCK.offsets["s_checksum"]]) != fields["s_checksum"]:
        return None
    name = _name(compat, incompat, ro_compat)
    if name is None or (name == "ext4" and flags & _TEST_FILESYS):
        return None
    return FileSystemKind(name, uuid_text(bytes(fields["s_uuid"])), label_text(bytes(fields["s_volume_name"])))


def _is_plausible(fields: Mapping[str, int | bytes]) -> bool:
    """Tell a superblock from two bytes that happen to be the magic: no driver takes one without these."""
    counts = ("s_inodes_count", "s_blocks_count_lo", "s_blocks_per_group", "s_inodes_per_group")
    return all(fields[name] for name in counts) and int(fields["s_log_block_size"]) <= _MAX_LOG_BLOCK_SIZE


def _name(compat: int, incompat: int, ro_compat: int) -> str | None:
    if incompat & JOURNAL_DEV:
        return None
    if ro_compat & ~_OLD_RO_COMPAT or incompat & ~_EXT3_INCOMPAT:
        return "ext4"
    if compat & _HAS_JOURNAL:
        return "ext3"
    return None if incompat & ~_EXT2_INCOMPAT else "ext2"
