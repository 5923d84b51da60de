# SPDX-License-Identifier: MIT
"""The division of an existing file system after it has grown. Pure arithmetic.

Existing data is not moved: new groups are like the old ones. The table of descriptors grows into the blocks reserved
after it and, if these are used up or do not exist, into the new groups themselves (meta_bg). Only the second copy of
the superblock by sparse_super2 moves, to the new last group.
"""

from __future__ import annotations

from pydiskimg.errors import DoesNotFitError, FileSystemError
from pydiskimg.fs.ext4.features import NOT_GROWN, Compat, Incompat
from pydiskimg.fs.ext4.file_system import MAX_GROUPS
from pydiskimg.fs.ext4.geometry import PAGE_SIZE, SPARE_BLOCKS, Geometry
from pydiskimg.fs.ext4.layout import GROUP_DESCRIPTOR_64
from pydiskimg.units import format_bytes

_MAX_32 = (1 << 32) - 1
_MAX_48 = (1 << 48) - 1
_MAX_IN_16_BITS = 65528  # the counts of a descriptor of 32 bytes, and a multiple of 8


def larger(old: Geometry, size: int, where: str) -> Geometry:
    """Return the geometry for size bytes, by the rules of resize2fs; old itself if nothing is gained.

    A last group with hardly more room than for its own metadata is left out. where names the disk in messages. Raises
    FileSystemError for a file system that cannot be grown here, DoesNotFitError if it cannot become that large
    (available is its largest size).
    """
    refuse_resizing(old, where)
    rounding = max(PAGE_SIZE // old.block_size, old.cluster_blocks)
    most = _MAX_48 if Incompat.BIT64 in old.features else _MAX_32
    blocks = min(size // old.block_size // rounding * rounding, most)
    if blocks <= old.blocks:
        return old
    grown = _divided(old, blocks, where)
    rest = (blocks - old.first_data_block) % old.blocks_per_group
    if grown.groups > old.groups and rest and rest < grown.group_overhead(grown.groups - 1) + SPARE_BLOCKS:
        grown = _divided(old, blocks - rest, where)
    if grown.groups > old.groups:
        _refuse_crowded(grown, where)
    return grown if grown.blocks > old.blocks else old


def refuse_resizing(old: Geometry, where: str) -> None:
    """Raise FileSystemError for a file system whose size cannot be changed here; where names the disk."""
    for feature, name in NOT_GROWN:
        if feature in old.features:
            raise FileSystemError(
                f"{where}: its ext file system has the feature {name}; its size cannot be changed here"
            )
    resize, meta_bg = Compat.RESIZE_INODE in old.features, Incompat.META_BG in old.features
    if (resize and meta_bg) or (old.reserved_gdt_blocks and not resize):
        found = "the features resize_inode and meta_bg" if resize else "no resize inode"
        raise FileSystemError(
            f"{where}: its ext file system has {old.reserved_gdt_blocks} reserved descriptor blocks and {found}; "
            "check it (e2fsck -f)"
        )
    if old.reserved_gdt_blocks > old.block_size // 4:
        raise FileSystemError(
            f"{where}: its ext file system has {old.reserved_gdt_blocks} reserved descriptor blocks, expected at most "
            f"{old.block_size // 4}; check it (e2fsck -f)"
        )


def _divided(old: Geometry, blocks: int, where: str) -> Geometry:
    """Return old with that many blocks; its new descriptors are in the reserve, or spread."""
    reserved = min(old.reserved_blocks, old.blocks) * blocks // old.blocks
    grown = old.replaced(blocks=blocks, reserved_blocks=reserved)
    _refuse_too_many(old, grown, where)
    if Compat.SPARSE_SUPER2 in old.features and grown.groups > old.groups:
        grown = grown.replaced(two_copies=_two_copies(old, grown.groups - 1))
    more = max(grown.desc_blocks - old.desc_blocks, 0)
    if not more or Incompat.META_BG in old.features:
        return grown
    if more <= old.reserved_gdt_blocks:
        return grown.replaced(reserved_gdt_blocks=old.reserved_gdt_blocks - more)
    packed = old.desc_blocks + old.reserved_gdt_blocks
    features = old.features.without(Compat.RESIZE_INODE).with_(Incompat.META_BG)
    return grown.replaced(features=features, first_meta_bg=packed, reserved_gdt_blocks=0)


def _two_copies(old: Geometry, last: int) -> tuple[int, int]:
    """Return the groups of the copies by sparse_super2 when last is the new last group, as resize2fs does.

    A second copy that is not in the last group stays where it is.
    """
    first, second = old.two_copies
    if old.groups == 1:
        first = 1
    if second == old.groups - 1 or (not second and old.groups <= 2):
        second = last
    return first, second if second != first else 0


def _refuse_too_many(old: Geometry, grown: Geometry, where: str) -> None:
    most = min(MAX_GROUPS, _MAX_32 // old.inodes_per_group)
    if grown.groups > most:
        available = (old.first_data_block + most * old.blocks_per_group) * old.block_size
        available = available // PAGE_SIZE * PAGE_SIZE
        why = "its inodes, or its groups, could not be counted"
        needed = grown.blocks * grown.block_size
        raise DoesNotFitError(
            f"{where}: its ext file system cannot grow to {format_bytes(needed)}, at most to "
            f"{format_bytes(available)}: {why}; nothing was grown",
            needed=needed,
            available=available,
        )


def _refuse_crowded(grown: Geometry, where: str) -> None:
    """Refuse numbers that no file system has, or that a descriptor cannot hold."""
    table = max(grown.packed_desc_blocks, 1)
    largest = 1 + table + grown.reserved_gdt_blocks + 2 + grown.inode_blocks
    is_short = grown.desc_size < GROUP_DESCRIPTOR_64.size
    if largest > grown.blocks_per_group or (
        is_short and max(grown.clusters_per_group, grown.inodes_per_group) > _MAX_IN_16_BITS
    ):
        raise FileSystemError(
            f"{where}: a group of {grown.blocks_per_group} blocks of its ext file system has no room for "
            f"{grown.inode_blocks} blocks of inodes and {table} of descriptors; nothing was grown"
        )
