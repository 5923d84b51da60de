# SPDX-License-Identifier: MIT
"""The superblock of a new file system and its copies."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.geometry import Geometry

_ERRORS_CONTINUE = 1
_DYNAMIC_REVISION = 1
_HALF_MD4 = 1
_SIGNED_HASH = 1
_JOURNAL_BACKUP = 1
_XATTR_USER, _ACL = 0x4, 0x8
_LAST_GROUP_NUMBER = 0xFFFF  # the field has 16 bits


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one file system from another; now is in seconds since 1970, label is encoded."""

    uuid: UUID
    hash_seed: UUID
    label: bytes
    now: int


def superblock_values(
    geometry: Geometry, identity: Identity, *, free_blocks: int, overhead: int, journal_map: bytes | None
) -> dict[str, int | bytes]:
    """Return the fields of the primary superblock, all but the checksum.

    overhead is in blocks; journal_map holds i_block of the journal's inode, None without a journal.
    """
    log_block = geometry.block_size.bit_length() - 11
    features = geometry.features
    values: dict[str, int | bytes] = {
        "s_inodes_count": geometry.inodes,
        "s_free_inodes_count": geometry.inodes - layout.FIRST_INODE,
        "s_first_data_block": geometry.first_data_block,
        "s_log_block_size": log_block,
        "s_log_cluster_size": log_block,
        "s_blocks_per_group": geometry.blocks_per_group,
        "s_clusters_per_group": geometry.blocks_per_group,
        "s_inodes_per_group": geometry.inodes_per_group,
        "s_max_mnt_count": -1,
        "s_magic": layout.SUPERBLOCK_MAGIC,
        "s_state": layout.VALID_FS,
        "s_errors": _ERRORS_CONTINUE,
        "s_rev_level": _DYNAMIC_REVISION,
        "s_first_ino": layout.FIRST_INODE,
        "s_inode_size": layout.INODE_SIZE,
        "s_feature_compat": int(features.compat),
        "s_feature_incompat": int(features.incompat),
        "s_feature_ro_compat": int(features.ro_compat),
        "s_uuid": identity.uuid.bytes,
        "s_volume_name": identity.label,
        "s_reserved_gdt_blocks": geometry.reserved_gdt_blocks,
        "s_hash_seed": identity.hash_seed.bytes,
        "s_def_hash_version": _HALF_MD4,
        "s_desc_size": geometry.desc_size if features.bits64 else 0,
        "s_default_mount_opts": _XATTR_USER | _ACL,
        "s_min_extra_isize": layout.INODE_EXTRA_SIZE,
        "s_want_extra_isize": layout.INODE_EXTRA_SIZE,
        "s_flags": _SIGNED_HASH,
        "s_log_groups_per_flex": geometry.flex_size.bit_length() - 1,
        "s_checksum_type": layout.CHECKSUMS_CRC32C if features.checksums else 0,
        "s_overhead_clusters": overhead,
    }
    for name, number in (
        ("s_blocks_count", geometry.blocks),
        ("s_r_blocks_count", geometry.reserved_blocks),
        ("s_free_blocks_count", free_blocks),
    ):
        values |= {f"{name}_lo": number & 0xFFFFFFFF, f"{name}_hi": number >> 32}
    for name in ("s_wtime", "s_lastcheck", "s_mkfs_time"):
        values |= {name: identity.now & 0xFFFFFFFF, f"{name}_hi": identity.now >> 32}
    if journal_map is not None:
        size = geometry.journal_blocks * geometry.block_size
        values["s_journal_inum"] = layout.JOURNAL_INODE
        values["s_jnl_backup_type"] = _JOURNAL_BACKUP
        values["s_jnl_blocks"] = (
            journal_map + (size >> 32).to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
        )
    return values


def superblock(values: dict[str, int | bytes], checksums: Checksums, group: int) -> bytes:
    """Return the superblock for a group; the copies outside of group 0 are marked as not cleanly unmounted."""
    state = values["s_state"] if group == 0 else 0
    number = min(group, _LAST_GROUP_NUMBER)
    block = bytearray(layout.SUPERBLOCK.pack(**{**values, "s_block_group_nr": number, "s_state": state}))
    checksums.superblock(block)
    return bytes(block)
