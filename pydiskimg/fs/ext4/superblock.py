# SPDX-License-Identifier: MIT
"""The superblock as it is read and written, and what its fields say together (super.rst).

Nothing is judged here but the magic: file_system.py says which superblocks are believed.
"""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums, superblock_checksum
from pydiskimg.fs.ext4.features import Compat, Feature, Features, Incompat, RoCompat
from pydiskimg.records import Value
from pydiskimg.startup import TYPE_CHECKING, cached_property

if TYPE_CHECKING:
    from typing import Any
    from uuid import UUID

    from pydiskimg.fs.ext4.geometry import Geometry

MAX_LOG_BLOCK_SIZE = 6  # 64 KiB
_ERRORS_CONTINUE = 1
_DYNAMIC_REVISION = 1
_HALF_MD4 = 1
_SIGNED_HASH = 1
_XATTR_USER, _ACL = 0x4, 0x8
_OWN_FILES = {
    "s_journal_inum": Compat.HAS_JOURNAL,
    "s_orphan_file_inum": Compat.ORPHAN_FILE,
    "s_usr_quota_inum": RoCompat.QUOTA,
    "s_grp_quota_inum": RoCompat.QUOTA,
    "s_prj_quota_inum": RoCompat.QUOTA,
}
_LAST_GROUP_NUMBER = 0xFFFF  # the field has 16 bits


class Superblock:
    """What the fields of one superblock say."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    def number(self, name: str) -> int:
        return int(self.fields[name])

    @cached_property
    def features(self) -> Features:
        return Features(*(self.number(f"s_feature_{name}") for name in ("compat", "incompat", "ro_compat")))

    @property
    def uuid(self) -> bytes:
        return bytes(self.fields["s_uuid"])

    @property
    def block_size(self) -> int | None:
        """In bytes; None when it is larger than any."""
        log = self.number("s_log_block_size")
        return 1024 << log if log <= MAX_LOG_BLOCK_SIZE else None

    @property
    def blocks(self) -> int:
        return self.wide("s_blocks_count")

    def wide(self, name: str) -> int:
        """Return a number of blocks, whose upper half counts with 64bit only."""
        high = self.number(f"{name}_hi") if Incompat.BIT64 in self.features else 0
        return self.number(f"{name}_lo") | high << 32

    @property
    def first_inode(self) -> int:
        """The first inode that is not the file system's own."""
        return self.number("s_first_ino") if self.number("s_rev_level") else layout.FIRST_INODE

    @property
    def journal_inode(self) -> int:
        """The inode of its journal; 0: it has none, or one on another device."""
        return self.number("s_journal_inum") if Compat.HAS_JOURNAL in self.features else 0

    @property
    def own_files(self) -> frozenset[int]:
        """The inodes that no directory names. e2fsck takes them for that with their features and without."""
        return frozenset(map(self.number, _OWN_FILES)) - {0}

    @property
    def file_without_feature(self) -> tuple[str, int, Feature] | None:
        """A field that names an inode that any file may have, the inode, and the feature that is missing for it.

        e2fsck counts such a file of project quotas as in use, and the kernel does not.
        """
        for name, feature in _OWN_FILES.items():
            if self.number(name) >= self.first_inode and feature not in self.features:
                return name, self.number(name), feature
        return None

    @property
    def expected_checksum(self) -> int:
        """What s_checksum should be; where there are no checksums, what it is."""
        if RoCompat.METADATA_CSUM not in self.features:
            return self.number("s_checksum")
        return superblock_checksum(layout.SUPERBLOCK.pack(**self.fields))


def parse_superblock(raw: bytes) -> Superblock | None:
    """Return the superblock in the first 1024 of raw; None if there are fewer bytes, or no magic."""
    fields = layout.SUPERBLOCK.unpack(raw) if len(raw) >= layout.SUPERBLOCK.size else {}
    return Superblock(fields) if fields.get("s_magic") == layout.SUPERBLOCK_MAGIC else None


class Identity:
    """What distinguishes one file system from another; now is in seconds since 1970, label is encoded."""

    def __init__(self, uuid: UUID, hash_seed: UUID, label: bytes, now: int) -> None:
        self.uuid = uuid
        self.hash_seed = hash_seed
        self.label = label
        self.now = now


def count_fields(geometry: Geometry, free_blocks: int, free_inodes: int) -> dict[str, Value]:
    """Return the fields that change when a file system grows."""
    fields: dict[str, Value] = {
        **geometry.features.fields,
        "s_inodes_count": geometry.inodes,
        "s_free_inodes_count": free_inodes,
        "s_reserved_gdt_blocks": geometry.reserved_gdt_blocks,
        "s_first_meta_bg": geometry.first_meta_bg,
        "s_backup_bgs": b"".join(group.to_bytes(4, "little") for group in geometry.two_copies),
    }
    for name, number in (
        ("s_blocks_count", geometry.blocks),
        ("s_r_blocks_count", geometry.reserved_blocks),
        ("s_free_blocks_count", free_blocks),
    ):
        fields |= {f"{name}_lo": number & 0xFFFFFFFF, f"{name}_hi": number >> 32}
    return fields


def new_fields(
    geometry: Geometry,
    identity: Identity,
    *,
    free_blocks: int,
    free_inodes: int,
    overhead: int,
    journal: tuple[bytes, int] | None,
) -> dict[str, Value]:
    """Return the fields of the primary superblock, all but the checksum.

    overhead is in blocks; journal holds i_block of the journal's inode and its blocks, None without a journal.
    """
    log_block = geometry.block_size.bit_length() - 11
    features = geometry.features
    fields: dict[str, Value] = {
        **count_fields(geometry, free_blocks, free_inodes),
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
        "s_inode_size": geometry.inode_size,
        "s_uuid": identity.uuid.bytes,
        "s_volume_name": identity.label,
        "s_hash_seed": identity.hash_seed.bytes,
        "s_def_hash_version": _HALF_MD4,
        "s_desc_size": geometry.desc_size if Incompat.BIT64 in features else 0,
        "s_default_mount_opts": _XATTR_USER | _ACL,
        "s_min_extra_isize": layout.INODE_EXTRA_SIZE,
        "s_want_extra_isize": layout.INODE_EXTRA_SIZE,
        "s_flags": _SIGNED_HASH,
        "s_log_groups_per_flex": geometry.flex_size.bit_length() - 1,
        "s_checksum_type": layout.CHECKSUMS_CRC32C if RoCompat.METADATA_CSUM in features else 0,
        "s_overhead_clusters": overhead,
    }
    for name in ("s_wtime", "s_lastcheck", "s_mkfs_time"):
        fields |= {name: identity.now & 0xFFFFFFFF, f"{name}_hi": identity.now >> 32}
    if journal is not None:
        i_block, blocks = journal
        size = blocks * geometry.block_size
        fields["s_journal_inum"] = layout.JOURNAL_INODE
        fields["s_jnl_backup_type"] = layout.JOURNAL_BACKUP
        fields["s_jnl_blocks"] = (
            i_block + (size >> 32).to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
        )
    return fields


def superblock(fields: dict[str, Value], checksums: Checksums, group: int) -> bytes:
    """Return the superblock for a group; the copies outside of group 0 are marked as not cleanly unmounted."""
    state = fields["s_state"] if group == 0 else 0
    number = min(group, _LAST_GROUP_NUMBER)
    block = bytearray(layout.SUPERBLOCK.pack(**{**fields, "s_block_group_nr": number, "s_state": state}))
    checksums.superblock(block)
    return bytes(block)
