# SPDX-License-Identifier: MIT
"""The resize inode, which holds the blocks that are reserved for more group descriptors and for their copies.

Its double indirect block points to the reserved blocks of group 0. Each of those is an indirect block as long as it is
reserved, and points to the blocks at the same place of the groups with copies of the superblock:

    i_block[13] ──> | ... | reserved 1 | reserved 2 | ... |      at index (number of the descriptor block) % size
                              └──> | group 1 | group 3 | ...
"""

from __future__ import annotations

import struct

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.descriptors import read_descriptor
from pydiskimg.fs.ext4.errors import NotBelievedError
from pydiskimg.fs.ext4.existing import Division
from pydiskimg.fs.ext4.file_map import read_inode
from pydiskimg.protocols import Source, read_bytes

_DOUBLE = 13  # in i_block


def regrown_reserve(source: Source, volume: Division, grown: Division, checksums: Checksums) -> dict[int, bytes]:
    """Return the blocks of the map and of the inode itself as they are for grown, by number.

    Raises NotBelievedError unless source has exactly what volume should have, and as reading does.
    """
    raw, _ = read_inode(source, volume, layout.RESIZE_INODE)
    inode = bytearray(raw)
    fields = layout.INODE.unpack(raw.ljust(layout.INODE.size, b"\0"))
    i_block = fields["i_block"]
    assert isinstance(i_block, bytes)
    pointers = struct.unpack(f"<{layout.BLOCK_POINTERS}I", i_block)
    double = pointers[_DOUBLE]
    others = any(pointers[:_DOUBLE]) or pointers[_DOUBLE + 1]
    if others or not volume.first_data_block + volume.group_head(0) <= double < volume.blocks:
        raise _unexpected(volume)
    found = _map(volume, double)
    if int(fields["i_blocks_lo"]) != _sectors(volume) or not _is_stored(source, volume, found):
        raise _unexpected(volume)
    if _sectors(grown) >= 1 << 32:
        raise NotBelievedError(volume.name, "its resize inode cannot count the blocks that would be reserved")
    layout.INODE.put(inode, {"i_blocks_lo": _sectors(grown)})
    checksums.inode(layout.RESIZE_INODE, inode)
    number, block = _block_with(source, volume, bytes(inode))
    return {**_map(grown, double), number: block}


def _copies(volume: Division) -> list[int]:
    """Return the groups after the first with a copy of the superblock; refuses more than an indirect block names."""
    groups = [group for group in range(1, volume.groups) if volume.has_superblock(group)]
    if len(groups) > volume.block_size // 4:
        raise NotBelievedError(
            volume.name, f"{len(groups)} copies of its superblock are more than its resize inode names"
        )
    return groups


def _map(volume: Division, double: int) -> dict[int, bytes]:
    per_block = volume.block_size // 4
    first = volume.first_data_block + 1 + volume.desc_blocks
    distances = [group * volume.blocks_per_group for group in _copies(volume)]
    pointers = [0] * per_block
    blocks: dict[int, bytes] = {}
    for index in range(volume.reserved_gdt_blocks):
        pointers[(volume.desc_blocks + index) % per_block] = first + index
        numbers = [first + index + distance for distance in distances]
        if numbers and numbers[-1] >= 1 << 32:
            raise NotBelievedError(volume.name, "its resize inode cannot name the blocks that would be reserved")
        blocks[first + index] = struct.pack(f"<{len(numbers)}I", *numbers).ljust(volume.block_size, b"\0")
    blocks[double] = struct.pack(f"<{per_block}I", *pointers)
    return blocks


def _sectors(volume: Division) -> int:
    blocks = 1 + volume.reserved_gdt_blocks * (1 + len(_copies(volume)))
    return blocks * volume.block_size // 512


def _is_stored(source: Source, volume: Division, blocks: dict[int, bytes]) -> bool:
    size = volume.block_size
    return all(read_bytes(source, number * size, size) == content for number, content in blocks.items())


def _block_with(source: Source, volume: Division, inode: bytes) -> tuple[int, bytes]:
    """Return the block of the inode table that holds the resize inode, with inode in its place."""
    size = volume.block_size
    table = read_descriptor(source, volume, 0).inode_table
    skipped, at = divmod((layout.RESIZE_INODE - 1) * volume.inode_size, size)
    block = bytearray(read_bytes(source, (table + skipped) * size, size))
    block[at : at + len(inode)] = inode
    return table + skipped, bytes(block)


def _unexpected(volume: Division) -> NotBelievedError:
    return NotBelievedError(volume.name, "its resize inode does not hold the blocks reserved for group descriptors")
