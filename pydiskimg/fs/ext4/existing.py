# SPDX-License-Identifier: MIT
"""An existing file system as its superblock describes it: sizes, groups, where the descriptors are (super.rst).

A guest has written it, so nothing is taken over that another number does not confirm. Only what this module
understands in full is accepted, and everything else raises NotBelievedError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydiskimg.crc32c import crc32c
from pydiskimg.fs.ext4.errors import NotBelievedError
from pydiskimg.fs.ext4.features import Compat, Incompat, RoCompat
from pydiskimg.fs.ext4.geometry import has_backup
from pydiskimg.fs.ext4.layout import (
    CHECKSUMS_CRC32C,
    ERROR_FS,
    FAST_COMMIT_REPLAY,
    GOOD_OLD_INODE_SIZE,
    SUPERBLOCK,
    SUPERBLOCK_MAGIC,
    SUPERBLOCK_OFFSET,
    VALID_FS,
)
from pydiskimg.protocols import Source, read_bytes

_MAX_LOG_BLOCK_SIZE = 6  # 64 KiB
_MAX_LOG_CLUSTER_SIZE = 19  # 512 MiB, the kernel's bound
_MIN_BLOCKS_PER_GROUP = 256  # mke2fs makes no smaller ones
MAX_GROUPS = 1 << 22  # 16 TiB in groups of half the smallest usual size

# Whoever adds a bit must know that it does not change what a block bitmap means.
_INCOMPAT = sum(Incompat)
_RO_COMPAT = sum(RoCompat)


@dataclass(frozen=True, slots=True)
class Division:
    """The division of a file system; units are blocks where nothing else is said.

    cluster_blocks is 1 except with bigalloc; a bit of a block bitmap stands for a cluster. checksum_seed is that of
    metadata_csum. Groups, descriptors and inodes are numbered as in the specification.
    """

    name: str
    block_size: int
    cluster_blocks: int
    blocks: int
    first_data_block: int
    blocks_per_group: int
    groups: int
    inodes_per_group: int
    inode_size: int
    desc_size: int
    reserved_gdt_blocks: int
    first_meta_bg: int
    backup_groups: tuple[int, int]
    compat: Compat
    incompat: Incompat
    ro_compat: RoCompat
    uuid: bytes
    checksum_seed: int
    state: int
    journal_inode: int

    @property
    def has_checksums(self) -> bool:
        return RoCompat.METADATA_CSUM in self.ro_compat

    @property
    def has_uninitialised_groups(self) -> bool:
        """True when the flags of a descriptor count, which a checksum protects then."""
        return bool(self.ro_compat & (RoCompat.METADATA_CSUM | RoCompat.GDT_CSUM))

    @property
    def needs_recovery(self) -> bool:
        return Incompat.RECOVER in self.incompat

    @property
    def inode_blocks(self) -> int:
        """Blocks of one group's inode table."""
        return -(-self.inodes_per_group * self.inode_size // self.block_size)

    @property
    def desc_per_block(self) -> int:
        return self.block_size // self.desc_size

    @property
    def desc_blocks(self) -> int:
        return -(-self.groups // self.desc_per_block)

    def group_start(self, group: int) -> int:
        return self.first_data_block + group * self.blocks_per_group

    def group_end(self, group: int) -> int:
        """The first block after the group."""
        return min(self.group_start(group + 1), self.blocks)

    def has_superblock(self, group: int) -> bool:
        if group == 0:
            return True
        if Compat.SPARSE_SUPER2 in self.compat:
            return group in self.backup_groups
        return RoCompat.SPARSE_SUPER not in self.ro_compat or has_backup(group)

    def group_head(self, group: int) -> int:
        """Blocks at a group's start for the superblock, the descriptors and their reserve."""
        copies = int(self.has_superblock(group))
        if Incompat.META_BG in self.incompat:
            if group >= self.first_meta_bg * self.desc_per_block:
                within = group % self.desc_per_block
                return self._boot_block(group) + copies + (within in (0, 1, self.desc_per_block - 1))
            whole = copies + self.first_meta_bg + self.reserved_gdt_blocks
        else:
            whole = copies + self.desc_blocks + self.reserved_gdt_blocks
        return self._boot_block(group) + whole if copies else 0

    def descriptor_block(self, number: int) -> int:
        """Return where block number of the descriptor table is: the copy that is used, not a backup."""
        if Incompat.META_BG not in self.incompat or number < self.first_meta_bg:
            return SUPERBLOCK_OFFSET // self.block_size + 1 + number
        group = number * self.desc_per_block
        return self.group_start(group) + self._boot_block(group) + self.has_superblock(group)

    def _boot_block(self, group: int) -> int:
        """Blocks before the superblock that belong to group 0: with bigalloc and blocks of 1 KiB there is one."""
        return SUPERBLOCK_OFFSET // self.block_size - self.first_data_block if group == 0 else 0


def read_volume(source: Source) -> Division:
    """Return the file system that begins where source begins.

    Raises NotBelievedError when its superblock is not that of a sound ext2, ext3 or ext4 that fits into source, or
    has features that are not known here; StorageError as reading does. What s_state says is not judged.
    """
    if source.size < SUPERBLOCK_OFFSET + SUPERBLOCK.size:
        raise NotBelievedError(source.name, f"there is no room for a superblock in {source.size} bytes")
    raw = read_bytes(source, SUPERBLOCK_OFFSET, SUPERBLOCK.size)
    fields = SUPERBLOCK.unpack(raw)
    numbers = {name: value for name, value in fields.items() if isinstance(value, int)}
    problem = _unknown(numbers) or _checksum_problem(raw, numbers) or _size_problem(numbers)
    if problem is None:
        volume = _volume(source.name, numbers, raw)
        problem = (
            _group_problem(volume, numbers) or _count_problem(volume, numbers) or _room_problem(volume, source.size)
        )
        if problem is None:
            return volume
    raise NotBelievedError(source.name, problem)


def state_problem(volume: Division) -> str | None:
    """Return why what s_state says forbids to believe the bitmaps, or None."""
    if volume.state & ERROR_FS:
        return "the kernel has seen errors in it, and it was not checked since"
    if not volume.state & VALID_FS:
        return "it was not unmounted cleanly and has no journal that would tell what was changed"
    if volume.state & FAST_COMMIT_REPLAY:
        return "a replay of its fast commits was interrupted"
    return None


def _unknown(numbers: Mapping[str, int]) -> str | None:
    if numbers["s_magic"] != SUPERBLOCK_MAGIC:
        return f"the superblock has no magic (found {numbers['s_magic']:#06x}, expected {SUPERBLOCK_MAGIC:#06x})"
    if numbers["s_rev_level"] > 1:
        return f"it has revision {numbers['s_rev_level']}, and 0 and 1 are known"
    incompat = numbers["s_feature_incompat"] & ~_INCOMPAT
    ro_compat = numbers["s_feature_ro_compat"] & ~_RO_COMPAT
    if incompat or ro_compat:
        return f"it has features that are not known here (incompat {incompat:#x}, ro_compat {ro_compat:#x})"
    any_feature = any(numbers[f"s_feature_{kind}"] for kind in ("compat", "incompat", "ro_compat"))
    if not numbers["s_rev_level"] and any_feature:
        return "it has revision 0 and features, which belong to revision 1"
    return None


def _checksum_problem(raw: bytes, numbers: Mapping[str, int]) -> str | None:
    if not numbers["s_feature_ro_compat"] & RoCompat.METADATA_CSUM:
        return None
    if numbers["s_checksum_type"] != CHECKSUMS_CRC32C:
        return f"its checksums are of type {numbers['s_checksum_type']}, and 1 (crc32c) is known"
    found = crc32c(raw[: SUPERBLOCK.offsets["s_checksum"]])
    if found != numbers["s_checksum"]:
        return f"the superblock's checksum is {found:#010x}, and {numbers['s_checksum']:#010x} is stored"
    return None


def _size_problem(numbers: Mapping[str, int]) -> str | None:
    """Judge the sizes by themselves: what _volume() computes with is in range after this."""
    log_block, log_cluster = numbers["s_log_block_size"], numbers["s_log_cluster_size"]
    if log_block > _MAX_LOG_BLOCK_SIZE:
        return f"its block size is 1024 << {log_block}"
    block_size = 1024 << log_block
    bigalloc = bool(numbers["s_feature_ro_compat"] & RoCompat.BIGALLOC)
    if not log_block <= log_cluster <= _MAX_LOG_CLUSTER_SIZE or (log_cluster > log_block and not bigalloc):
        return f"its cluster size is 1024 << {log_cluster}, with blocks of {block_size} bytes"
    inode_size, desc_size = numbers["s_inode_size"], numbers["s_desc_size"]
    if numbers["s_rev_level"] and not (_is_power(inode_size) and GOOD_OLD_INODE_SIZE <= inode_size <= block_size):
        return f"its inodes have {inode_size} bytes, with blocks of {block_size}"
    bits64 = bool(numbers["s_feature_incompat"] & Incompat.BIT64)
    if bits64 and not (_is_power(desc_size) and 64 <= desc_size <= block_size):
        return f"its group descriptors have {desc_size} bytes, with blocks of {block_size}"
    if not bits64 and desc_size not in (0, 32):
        return f"its group descriptors have {desc_size} bytes, and 32 are expected without 64bit"
    return None


def _is_power(number: int) -> bool:
    return number > 0 and not number & (number - 1)


def _volume(name: str, numbers: Mapping[str, int], raw: bytes) -> Division:
    block_size = 1024 << numbers["s_log_block_size"]
    incompat = Incompat(numbers["s_feature_incompat"])
    bits64 = Incompat.BIT64 in incompat
    blocks = numbers["s_blocks_count_lo"] | (numbers["s_blocks_count_hi"] << 32 if bits64 else 0)
    per_group, first = numbers["s_blocks_per_group"], numbers["s_first_data_block"]
    at = SUPERBLOCK.offsets
    uuid = raw[at["s_uuid"] : at["s_uuid"] + 16]
    backups = raw[at["s_backup_bgs"] : at["s_backup_bgs"] + 8]
    return Division(
        name=name,
        block_size=block_size,
        cluster_blocks=1 << numbers["s_log_cluster_size"] - numbers["s_log_block_size"],
        blocks=blocks,
        first_data_block=first,
        blocks_per_group=per_group,
        groups=-(-(blocks - first) // per_group) if per_group else 0,
        inodes_per_group=numbers["s_inodes_per_group"],
        inode_size=numbers["s_inode_size"] if numbers["s_rev_level"] else GOOD_OLD_INODE_SIZE,
        desc_size=numbers["s_desc_size"] if bits64 else 32,
        reserved_gdt_blocks=numbers["s_reserved_gdt_blocks"],
        first_meta_bg=numbers["s_first_meta_bg"],
        backup_groups=(int.from_bytes(backups[:4], "little"), int.from_bytes(backups[4:], "little")),
        compat=Compat(numbers["s_feature_compat"]),
        incompat=incompat,
        ro_compat=RoCompat(numbers["s_feature_ro_compat"]),
        uuid=uuid,
        checksum_seed=numbers["s_checksum_seed"] if Incompat.CSUM_SEED in incompat else crc32c(uuid),
        state=numbers["s_state"],
        journal_inode=numbers["s_journal_inum"] if numbers["s_feature_compat"] & Compat.HAS_JOURNAL else 0,
    )


def _group_problem(volume: Division, numbers: Mapping[str, int]) -> str | None:
    """Judge the size of the groups."""
    per_group, most = volume.blocks_per_group, 8 * volume.block_size * volume.cluster_blocks
    if per_group % 8 or not _MIN_BLOCKS_PER_GROUP <= per_group <= most or per_group % volume.cluster_blocks:
        return f"its groups have {per_group} blocks, with blocks of {volume.block_size} bytes"
    bigalloc = RoCompat.BIGALLOC in volume.ro_compat
    if bigalloc and numbers["s_clusters_per_group"] * volume.cluster_blocks != per_group:
        return f"its groups have {per_group} blocks but {numbers['s_clusters_per_group']} clusters"
    expected = int(volume.block_size * volume.cluster_blocks == 1024)
    if volume.first_data_block != expected:
        return f"its first data block is {volume.first_data_block}, and {expected} is expected"
    return None


def _count_problem(volume: Division, numbers: Mapping[str, int]) -> str | None:
    """Judge the numbers of blocks, groups and inodes by each other."""
    if not 0 < volume.inodes_per_group <= 8 * volume.block_size:
        return f"its groups have {volume.inodes_per_group} inodes, with blocks of {volume.block_size} bytes"
    if not 0 < volume.groups <= MAX_GROUPS:
        return f"it has {volume.blocks} blocks in groups of {volume.blocks_per_group}"
    if numbers["s_inodes_count"] != volume.inodes_per_group * volume.groups:
        return (
            f"it has {numbers['s_inodes_count']} inodes, and {volume.groups} groups of {volume.inodes_per_group} "
            "are expected"
        )
    return None


def _room_problem(volume: Division, size: int) -> str | None:
    end = volume.blocks * volume.block_size
    if end > size:
        return f"it ends at byte {end}, and the place for it at {size}"
    meta_bg = Incompat.META_BG in volume.incompat
    if meta_bg and volume.first_meta_bg > volume.desc_blocks:
        return f"its first group with descriptors of its own is {volume.first_meta_bg}, of {volume.desc_blocks} blocks"
    head = volume.group_head(0)
    if head >= volume.group_end(0) - volume.first_data_block:
        return f"its superblock and descriptors take {head} blocks, more than the first group has"
    if volume.journal_inode > volume.inodes_per_group:
        return f"its journal is inode {volume.journal_inode}, which is not in the first group"
    return None
