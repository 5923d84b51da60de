# SPDX-License-Identifier: MIT
"""Make the map of a file whose blocks are allocated, of any size and with holes; file_pieces() reads it (ifork.rst)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.file_map import pointer_block

MapPiece = tuple[int, int, int, bool]
"""First block of the file, its location, number of blocks, whether they were written."""

_I_BLOCK = 60
_pack_extent = layout.EXTENT.packer("ee_block", "ee_len", "ee_start_hi", "ee_start_lo")


@dataclass(slots=True)
class EncodedMap:
    """i_block, and the contents of the map's own blocks by number; their checksums are not yet set."""

    i_block: bytes
    nodes: dict[int, bytearray] = field(default_factory=dict)


def extent_tree(pieces: Sequence[MapPiece], block_size: int, take: Callable[[], int]) -> EncodedMap:
    """Map ascending pieces by extents; take() returns a new block for a node of the tree, and may raise."""
    if len(pieces) == 1 and pieces[0][2] < layout.EXTENT_MAX_LENGTH:  # most files
        return EncodedMap(_ONE_EXTENT + _extent(*pieces[0]).ljust(_I_BLOCK - len(_ONE_EXTENT), b"\0"))
    if not pieces:  # all files that are removed
        return EncodedMap(_NO_EXTENTS)
    encoded = EncodedMap(b"")
    entries = [(first, _extent(first, at, count, is_written)) for first, at, count, is_written in _split(pieces)]
    maximum = (block_size - layout.EXTENT_HEADER.size) // layout.EXTENT.size
    depth = 0
    while len(entries) > layout.EXTENTS_IN_INODE:
        above = []
        for start in range(0, len(entries), maximum):
            part, block = entries[start : start + maximum], take()
            node = _extent_node([entry for _, entry in part], maximum, depth)
            encoded.nodes[block] = bytearray(node.ljust(block_size, b"\0"))
            index = layout.EXTENT_INDEX.pack(ei_block=part[0][0], ei_leaf_lo=block & 0xFFFFFFFF, ei_leaf_hi=block >> 32)
            above.append((part[0][0], index))
        entries = above
        depth += 1
    root = _extent_node([entry for _, entry in entries], layout.EXTENTS_IN_INODE, depth)
    encoded.i_block = root.ljust(_I_BLOCK, b"\0")
    return encoded


def _split(pieces: Sequence[MapPiece]) -> Iterator[MapPiece]:
    """Join neighbours, and split pieces longer than an extent can be (one block less if it is unwritten)."""
    joined: list[MapPiece] = []
    for first, at, count, is_written in pieces:
        if joined:
            before, start, length, was_written = joined[-1]
            if (before + length, start + length, was_written) == (first, at, is_written):
                joined[-1] = (before, start, length + count, is_written)
                continue
        joined.append((first, at, count, is_written))
    for first, at, count, is_written in joined:
        most = layout.EXTENT_MAX_LENGTH - (0 if is_written else 1)
        for done in range(0, count, most):
            yield first + done, at + done, min(most, count - done), is_written


def _extent(first: int, at: int, count: int, is_written: bool) -> bytes:
    if not 0 <= first < 1 << 32:
        raise ValueError(f"its contents begin at block {first}, where a file has none")
    length = count if is_written else count + layout.EXTENT_MAX_LENGTH
    return _pack_extent(first, length, at >> 32, at & 0xFFFFFFFF)


def _extent_node(entries: Sequence[bytes], maximum: int, depth: int) -> bytes:
    header = layout.EXTENT_HEADER.pack(
        eh_magic=layout.EXTENT_MAGIC, eh_entries=len(entries), eh_max=maximum, eh_depth=depth
    )
    return header + b"".join(entries)


_NO_EXTENTS = layout.EXTENT_HEADER.pack(
    eh_magic=layout.EXTENT_MAGIC, eh_entries=0, eh_max=layout.EXTENTS_IN_INODE, eh_depth=0
).ljust(_I_BLOCK, b"\0")
_ONE_EXTENT = layout.EXTENT_HEADER.pack(
    eh_magic=layout.EXTENT_MAGIC, eh_entries=1, eh_max=layout.EXTENTS_IN_INODE, eh_depth=0
)


def pointer_tree(pieces: Sequence[MapPiece], block_size: int, take: Callable[[], int]) -> EncodedMap:
    """Map ascending pieces by block pointers; take() as for extent_tree(). ValueError if pointers cannot map them."""
    encoded = EncodedMap(b"")
    blocks = ((first + index, at + index) for first, at, count, _ in pieces for index in range(count))
    per_block = block_size // 4
    level = dict(blocks)
    root = [level.pop(index, 0) for index in range(layout.DIRECT_BLOCKS)]
    start = layout.DIRECT_BLOCKS
    for depth in (1, 2, 3):
        span = per_block**depth
        part = {number - start: block for number, block in level.items() if start <= number < start + span}
        for _ in range(depth):
            part = _pointer_level(part, per_block, block_size, take, encoded)
        root.append(part.get(0, 0))
        start += span
    if any(number >= start for number in level):
        raise ValueError(f"block {max(level)} of a file is beyond the reach of block pointers")
    encoded.i_block = pointer_block(root, _I_BLOCK)
    return encoded


def _pointer_level(
    part: dict[int, int], per_block: int, block_size: int, take: Callable[[], int], encoded: EncodedMap
) -> dict[int, int]:
    """Put pointers into new blocks, and return the locations of these by their number."""
    nodes: dict[int, list[int]] = {}
    for number, block in part.items():
        nodes.setdefault(number // per_block, [0] * per_block)[number % per_block] = block
    above = {}
    for number, numbers in nodes.items():
        above[number] = take()
        encoded.nodes[above[number]] = bytearray(pointer_block(numbers, block_size))
    return above
