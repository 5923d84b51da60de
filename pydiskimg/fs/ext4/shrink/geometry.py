# SPDX-License-Identifier: MIT
"""The division of an existing file system after it has shrunk. Pure arithmetic.

Groups at the end are removed, and the last remaining one may be shortened. Blocks of removed descriptors become part of
the reserve if there is a resize inode, and free otherwise.
"""

from __future__ import annotations

from pydiskimg.fs.ext4.features import Compat, Incompat
from pydiskimg.fs.ext4.geometry import PAGE_SIZE, SPARE_BLOCKS, Geometry
from pydiskimg.fs.ext4.grow_geometry import refuse_resizing


def smaller(old: Geometry, size: int, where: str) -> Geometry | None:
    """Return the geometry for at most size bytes, by the rules of resize2fs; old itself if that is not smaller.

    A last group with hardly more room than for its own metadata is left out; None if no group is left. where names the
    disk in messages. Raises FileSystemError for a file system whose size cannot be changed here.
    """
    refuse_resizing(old, where)
    rounding = max(PAGE_SIZE // old.block_size, old.cluster_blocks)
    blocks = size // old.block_size // rounding * rounding
    if blocks >= old.blocks:
        return old
    if blocks <= old.first_data_block:
        return None
    shrunk = _divided(old, blocks)
    rest = (blocks - old.first_data_block) % old.blocks_per_group
    if rest and rest < shrunk.group_overhead(shrunk.groups - 1) + SPARE_BLOCKS:
        if shrunk.groups == 1:
            return None
        shrunk = _divided(old, blocks - rest)
    return shrunk


def _divided(old: Geometry, blocks: int) -> Geometry:
    reserved = min(old.reserved_blocks, old.blocks) * blocks // old.blocks
    shrunk = old.replaced(blocks=blocks, reserved_blocks=reserved)
    if Compat.SPARSE_SUPER2 in old.features:
        shrunk = shrunk.replaced(two_copies=_two_copies(old, shrunk.groups - 1))
    if Incompat.META_BG in old.features and old.first_meta_bg > shrunk.desc_blocks:
        return shrunk.replaced(features=old.features.without(Incompat.META_BG), first_meta_bg=0)
    if Compat.RESIZE_INODE in old.features:
        reserve = old.reserved_gdt_blocks + old.desc_blocks - shrunk.desc_blocks
        return shrunk.replaced(reserved_gdt_blocks=min(reserve, old.block_size // 4))
    return shrunk


def _two_copies(old: Geometry, last: int) -> tuple[int, int]:
    """Return the groups of the copies by sparse_super2 when last is the new last group, as resize2fs does.

    The second one moves there from a removed group, unless the start of the group cannot become empty: its bitmaps
    (without flex_bg) or descriptors (with meta_bg) cannot be elsewhere.
    """
    first, second = old.two_copies
    first = first if first <= last else 0
    if second > last:
        is_movable = Incompat.FLEX_BG in old.features and Incompat.META_BG not in old.features
        second = last if is_movable and last > first else 0
    return first, second
