# SPDX-License-Identifier: MIT
"""How an existing file system is divided when it has become larger. Pure arithmetic.

What is there stays where it is: new groups are like the old ones. The table of descriptors grows into the blocks that
were reserved behind it, or, where nothing was ever reserved, into the new groups themselves (meta_bg).
"""

from __future__ import annotations

from dataclasses import replace

from pydiskimg.errors import DoesNotFitError, FileSystemError
from pydiskimg.fs.ext4.existing import MAX_GROUPS, Division
from pydiskimg.fs.ext4.features import Compat, Incompat, RoCompat
from pydiskimg.fs.ext4.geometry import PAGE_SIZE, SPARE_BLOCKS
from pydiskimg.units import format_bytes

_MAX_32 = (1 << 32) - 1
_MAX_48 = (1 << 48) - 1
_MAX_IN_16_BITS = 65528  # the counts of a descriptor of 32 bytes, and a multiple of 8


def larger(volume: Division, size: int) -> Division:
    """Return volume as it will be on size bytes, by the rules of resize2fs; volume itself when nothing is gained.

    A last group with hardly room for more than its own metadata is left out. Raises FileSystemError for a file system
    that is not grown here, DoesNotFitError when it cannot become that large (available is what it can).
    """
    _refuse(volume)
    bits64 = Incompat.BIT64 in volume.incompat
    rounding = max(PAGE_SIZE // volume.block_size, 1)
    blocks = min(size // volume.block_size // rounding * rounding, _MAX_48 if bits64 else _MAX_32)
    if blocks <= volume.blocks:
        return volume
    grown = _divided(volume, blocks)
    rest = (blocks - volume.first_data_block) % volume.blocks_per_group
    if grown.groups > volume.groups and rest and rest < _overhead(grown, grown.groups - 1) + SPARE_BLOCKS:
        grown = _divided(volume, blocks - rest)
    if grown.groups > volume.groups:
        _refuse_crowded(volume, grown)
    return grown if grown.blocks > volume.blocks else volume


def _refuse(volume: Division) -> None:
    for present, what in (
        (RoCompat.BIGALLOC in volume.ro_compat, "bigalloc"),
        (Compat.SPARSE_SUPER2 in volume.compat, "sparse_super2"),
        (Incompat.MMP in volume.incompat, "mmp"),
        (RoCompat.READONLY in volume.ro_compat, "read-only"),
    ):
        if present:
            raise FileSystemError(
                f"{volume.name}: its ext file system has the feature {what}, with which it is not grown"
            )
    resize, meta_bg = Compat.RESIZE_INODE in volume.compat, Incompat.META_BG in volume.incompat
    if (resize and meta_bg) or (volume.reserved_gdt_blocks and not resize):
        found = "the features resize_inode and meta_bg" if resize else "no resize inode"
        raise FileSystemError(
            f"{volume.name}: its ext file system has {volume.reserved_gdt_blocks} reserved descriptor blocks and "
            f"{found}; check it (e2fsck -f)"
        )
    if volume.reserved_gdt_blocks > volume.block_size // 4:
        raise FileSystemError(
            f"{volume.name}: its ext file system has {volume.reserved_gdt_blocks} reserved descriptor blocks, expected "
            f"at most {volume.block_size // 4}; check it (e2fsck -f)"
        )


def _divided(volume: Division, blocks: int) -> Division:
    """Return volume with that many blocks, its descriptors taken from the reserve or spread."""
    groups = -(-(blocks - volume.first_data_block) // volume.blocks_per_group)
    _refuse_too_many(volume, blocks, groups)
    grown = replace(volume, blocks=blocks, groups=groups)
    more = max(grown.desc_blocks - volume.desc_blocks, 0)
    if not more or Incompat.META_BG in volume.incompat:
        return grown
    if Compat.RESIZE_INODE not in volume.compat:
        return replace(grown, incompat=volume.incompat | Incompat.META_BG, first_meta_bg=volume.desc_blocks)
    return replace(grown, reserved_gdt_blocks=volume.reserved_gdt_blocks - more)


def _refuse_too_many(volume: Division, blocks: int, groups: int) -> None:
    most = min(MAX_GROUPS, _MAX_32 // volume.inodes_per_group)
    why = "its inodes, or its groups, could not be counted"
    if Compat.RESIZE_INODE in volume.compat:
        described = (volume.desc_blocks + volume.reserved_gdt_blocks) * volume.desc_per_block
        if described < most:
            most, why = described, "no more was reserved for its group descriptors when it was made"
    if groups > most:
        available = (volume.first_data_block + most * volume.blocks_per_group) * volume.block_size
        available = available // PAGE_SIZE * PAGE_SIZE
        needed = blocks * volume.block_size
        raise DoesNotFitError(
            f"{volume.name}: its ext file system cannot grow to {format_bytes(needed)}, at most to "
            f"{format_bytes(available)}: {why}; nothing was grown",
            needed=needed,
            available=available,
        )


def _overhead(volume: Division, group: int) -> int:
    return volume.group_head(group) + 2 + volume.inode_blocks


def _refuse_crowded(volume: Division, grown: Division) -> None:
    """Refuse numbers that no file system has, or that a descriptor cannot hold."""
    table = max(grown.first_meta_bg, 1) if Incompat.META_BG in grown.incompat else grown.desc_blocks
    largest = 1 + table + grown.reserved_gdt_blocks + 2 + grown.inode_blocks
    is_short = volume.desc_size < 64
    if largest > volume.blocks_per_group or (
        is_short and max(volume.blocks_per_group, volume.inodes_per_group) > _MAX_IN_16_BITS
    ):
        raise FileSystemError(
            f"{volume.name}: a group of {volume.blocks_per_group} blocks of its ext file system has no room for "
            f"{grown.inode_blocks} blocks of inodes and {table} of descriptors; nothing was grown"
        )
