# SPDX-License-Identifier: MIT
"""The resize inode, which holds the blocks that are reserved for more group descriptors and for their copies.

Its double indirect block points to the reserved blocks of group 0. Each of those is an indirect block while it is
reserved, and points to the blocks at the same offset in the groups with copies of the superblock:

    i_block[13] ──> | ... | reserved 1 | reserved 2 | ... |      at index (number of the descriptor block) % size
                              └──> | group 1 | group 3 | ...
"""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.file_map import Allocator, pointer_block
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.inodes import NewInodes, StoredInode, read_inode
from pydiskimg.fs.ext4.map_reader import pointers_in

_DOUBLE = 13  # in i_block


def make_resize_inode(geometry: Geometry, allocator: Allocator, inodes: NewInodes) -> dict[int, bytes]:
    """Define the inode and return its map's blocks by number."""
    double = allocator.allocate(geometry.first_data_block + geometry.group_overhead(0), 1)[0]
    per_block = geometry.block_size // 4
    size = (per_block * per_block + per_block + layout.DIRECT_BLOCKS) * geometry.block_size
    i_block = pointer_block([0] * _DOUBLE + [double], 60)
    inodes.set(layout.RESIZE_INODE, layout.REGULAR_FILE | 0o600, 1, size, _blocks(geometry), i_block)
    return _map(geometry, double)


def check_resize_inode(fs: FileSystem) -> int:
    """Return the block of the map that is not in the reserve. Errors as for regrown_reserve()."""
    return _checked(fs)[1]


def regrown_reserve(fs: FileSystem, grown: Geometry) -> dict[int, bytes]:
    """Return the new blocks of the map, and of the inode table with the inode, for grown, by number.

    Raises NotBelievedError unless the resize inode of fs is exactly as expected, and as reading does.
    """
    inode, double = _checked(fs)
    _check_nameable(fs, grown)
    sectors = _sectors(grown)
    if sectors >= 1 << 32:
        raise fs.not_believed("its resize inode cannot count the blocks that would be reserved")
    raw = bytearray(inode.raw)
    layout.INODE.put(raw, {"i_blocks_lo": sectors})
    return {**_map(grown, double), **_inode_block(fs, inode, raw)}


def without_reserve(fs: FileSystem) -> tuple[int, dict[int, bytes]]:
    """Return the block that a resize inode without reserve frees, and the block of the inode table by number.

    Raises as regrown_reserve() does.
    """
    inode, double = _checked(fs)
    return double, _inode_block(fs, inode, bytearray(len(inode.raw)))


def _inode_block(fs: FileSystem, inode: StoredInode, raw: bytearray) -> dict[int, bytes]:
    """Return the block of the inode table by number, with other contents of an inode."""
    fs.checksums.inode(inode.seed, raw)
    block = bytearray(fs.read(inode.block))
    block[inode.offset : inode.offset + len(raw)] = raw
    return {inode.block: bytes(block)}


def _checked(fs: FileSystem) -> tuple[StoredInode, int]:
    """Return the resize inode and its double indirect block; raises unless both are exactly as expected."""
    geometry = fs.geometry
    inode = read_inode(fs, layout.RESIZE_INODE)
    pointers = pointers_in(inode.i_block)
    double = pointers[_DOUBLE]
    others = any(pointers[:_DOUBLE]) or pointers[_DOUBLE + 1]
    is_inside = geometry.first_data_block + geometry.group_head(0) <= double < geometry.blocks
    if others or not is_inside or not _is_stored(fs, int(inode.fields["i_blocks_lo"]), double):
        raise fs.not_believed("its resize inode does not hold the blocks reserved for group descriptors")
    return inode, double


def _is_stored(fs: FileSystem, sectors: int, double: int) -> bool:
    """True if the map and i_blocks are as expected."""
    _check_nameable(fs, fs.geometry)
    blocks = _map(fs.geometry, double)
    return sectors == _sectors(fs.geometry) and all(fs.read(number) == content for number, content in blocks.items())


def _check_nameable(fs: FileSystem, geometry: Geometry) -> None:
    """Refuse more copies than an indirect block can list, and blocks beyond 32 bits."""
    if len(geometry.copies) > geometry.block_size // 4:
        raise fs.not_believed(f"{len(geometry.copies)} copies of its superblock are more than its resize inode names")
    farthest = max(geometry.copies, default=0) * geometry.blocks_per_group + _first_reserved(geometry)
    if geometry.reserved_gdt_blocks and farthest + geometry.reserved_gdt_blocks > 1 << 32:
        raise fs.not_believed("its resize inode cannot name the blocks that would be reserved")


def _first_reserved(geometry: Geometry) -> int:
    return geometry.superblock_block + 1 + geometry.desc_blocks


def _map(geometry: Geometry, double: int) -> dict[int, bytes]:
    size, first = geometry.block_size, _first_reserved(geometry)
    distances = [group * geometry.blocks_per_group for group in geometry.copies]
    pointers = [0] * (size // 4)
    blocks = {}
    for index in range(geometry.reserved_gdt_blocks):
        pointers[(geometry.desc_blocks + index) % len(pointers)] = first + index
        blocks[first + index] = pointer_block([first + index + distance for distance in distances], size)
    blocks[double] = pointer_block(pointers, size)
    return blocks


def _blocks(geometry: Geometry) -> int:
    """Blocks that the inode counts as its own."""
    return 1 + geometry.reserved_gdt_blocks * (1 + len(geometry.copies))


def _sectors(geometry: Geometry) -> int:
    return _blocks(geometry) * geometry.cluster_blocks * geometry.block_size // 512  # each counts as a whole cluster
