# SPDX-License-Identifier: MIT
"""The map of a new file's blocks: an extent tree, or the block pointers of ext2 and ext3 (ifork.rst)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.bitmaps import Run, total
from pydiskimg.fs.ext4.features import Features, Incompat
from pydiskimg.startup import Protocol


class Allocator(Protocol):
    """An allocator of free blocks."""

    def allocate(self, goal: int, length: int) -> Run:
        """Allocate at least one and at most length blocks, the first free ones at or after the block goal."""


def pointer_block(numbers: Sequence[int], size: int) -> bytes:
    """Return size bytes of pointers: numbers, then zeros."""
    return struct.pack(f"<{len(numbers)}I", *numbers).ljust(size, b"\0")


@dataclass(slots=True)
class FileMap:
    """The map of one new file.

    i_block is the root (60 bytes), runs the allocated blocks (including the map's own if they are between the data),
    blocks the number of all blocks, and nodes the contents of the map's own blocks by number; their checksums are not
    yet set.
    """

    i_block: bytes
    runs: list[Run]
    blocks: int
    is_extents: bool
    nodes: dict[int, bytearray] = field(default_factory=dict)

    @property
    def first_block(self) -> int:
        return self.runs[0][0]


def allocated(allocator: Allocator, goal: int, length: int) -> list[Run]:
    """Allocate length blocks from goal on, in as few runs as the free space allows; errors as for allocate()."""
    runs = []
    while length:
        start, end = allocator.allocate(goal, length)
        runs.append((start, end))
        length -= end - start
        goal = end
    return runs


def map_small(features: Features, block_size: int, runs: list[Run]) -> FileMap:
    """Map a file of few blocks; runs are allocated."""
    if Incompat.EXTENTS in features:
        return extent_map(runs, block_size, None)
    return pointer_map(runs, block_size, total(runs))


def map_by_extents(allocator: Allocator, block_size: int, goal: int, blocks: int) -> FileMap:
    """Allocate blocks for a file from goal on and map them by extents. Errors as for allocate()."""
    runs: list[Run] = []
    leaf = None
    left = blocks
    while left:
        start, end = allocator.allocate(goal, min(left, layout.EXTENT_MAX_LENGTH))
        runs.append((start, end))
        left -= end - start
        goal = end
        if len(runs) == layout.EXTENTS_IN_INODE + 1:
            leaf = allocator.allocate(runs[0][0] - 1, 1)[0]
    return extent_map(runs, block_size, leaf)


def extent_map(runs: list[Run], block_size: int, leaf: int | None) -> FileMap:
    """Map allocated runs; leaf is the block for the extents if the inode has no room for them."""
    blocks = total(runs)
    if leaf is None:
        assert len(runs) <= layout.EXTENTS_IN_INODE
        root = _header(len(runs), layout.EXTENTS_IN_INODE, 0) + b"".join(_extents(runs))
        return FileMap(root.ljust(60, b"\0"), runs, blocks, is_extents=True)
    maximum = (block_size - layout.EXTENT_HEADER.size) // layout.EXTENT.size
    assert len(runs) <= maximum, "free space is never cut into so many pieces by the metadata of empty groups"
    node = _header(len(runs), maximum, 0) + b"".join(_extents(runs))
    index = layout.EXTENT_INDEX.pack(ei_block=0, ei_leaf_lo=leaf & 0xFFFFFFFF, ei_leaf_hi=leaf >> 32)
    root = _header(1, layout.EXTENTS_IN_INODE, 1) + index
    nodes = {leaf: bytearray(node.ljust(block_size, b"\0"))}
    return FileMap(root.ljust(60, b"\0"), runs, blocks + 1, is_extents=True, nodes=nodes)


def _header(entries: int, maximum: int, depth: int) -> bytes:
    return layout.EXTENT_HEADER.pack(eh_magic=layout.EXTENT_MAGIC, eh_entries=entries, eh_max=maximum, eh_depth=depth)


def _extents(runs: list[Run]) -> Iterator[bytes]:
    logical = 0
    for start, end in runs:
        yield layout.EXTENT.pack(
            ee_block=logical, ee_len=end - start, ee_start_hi=start >> 32, ee_start_lo=start & 0xFFFFFFFF
        )
        logical += end - start


def map_by_pointers(allocator: Allocator, block_size: int, goal: int, blocks: int) -> FileMap:
    """Allocate blocks for a file from goal on and map them by pointers; a pointer block precedes the blocks that it
    maps.
    """
    pointers = pointer_blocks(blocks, block_size // 4)
    return pointer_map(allocated(allocator, goal, blocks + pointers), block_size, blocks)


def pointer_blocks(blocks: int, per_block: int) -> int:
    """Return how many blocks of pointers a file of that many blocks needs."""
    count, left = 0, blocks - layout.DIRECT_BLOCKS
    for depth in (1, 2, 3):
        covered = min(left, per_block**depth)
        if covered <= 0:
            break
        count += sum(-(-covered // per_block**level) for level in range(1, depth + 1))
        left -= covered
    return count


def pointer_map(runs: list[Run], block_size: int, blocks: int) -> FileMap:
    """Map allocated runs, which have room for the data blocks and the blocks of pointers."""
    builder = _PointerTree(runs, block_size, blocks)
    root = builder.data(layout.DIRECT_BLOCKS)
    root += [0] * (layout.DIRECT_BLOCKS - len(root))
    root += [builder.node(depth) if builder.left else 0 for depth in (1, 2, 3)]
    return FileMap(pointer_block(root, 60), runs, total(runs), is_extents=False, nodes=builder.nodes)


class _PointerTree:
    """Hands out the blocks of runs in order, to data and to the pointer blocks before them."""

    def __init__(self, runs: list[Run], block_size: int, left: int) -> None:
        self._blocks = list(chain.from_iterable(range(start, end) for start, end in runs))
        self._block_size = block_size
        self._at = 0
        self.left = left
        self.nodes: dict[int, bytearray] = {}

    def data(self, most: int) -> list[int]:
        count = min(most, self.left)
        self.left -= count
        self._at += count
        return self._blocks[self._at - count : self._at]

    def node(self, depth: int) -> int:
        """Return the block of a new node of pointers; its children are data (depth 1) or nodes."""
        block = self._blocks[self._at]
        self._at += 1
        per_block = self._block_size // 4
        if depth == 1:
            children = self.data(per_block)
        else:
            children = []
            while self.left and len(children) < per_block:
                children.append(self.node(depth - 1))
        self.nodes[block] = bytearray(pointer_block(children, self._block_size))
        return block
