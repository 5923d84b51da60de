# SPDX-License-Identifier: MIT
"""Find the blocks of a file from its inode: an extent tree, or the block pointers of ext2 and ext3 (ifork.rst).

The guest controls the map. It is read in one pass that advances in the file with each step, and accepts no more blocks
than the file system has and none of the map's own twice, so circular and endless maps are detected.
"""

from __future__ import annotations

from _struct import unpack  # struct.py only re-exports it, and takes 0.1 ms

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import RoCompat
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAX_DEPTH = 5
_MAX_BLOCKS = 1 << 32  # numbers of blocks in a file have 32 bits

FilePiece = tuple[int, int, int]
"""Number of the first block within the file, its location, and the number of blocks."""


def pointers_in(data: bytes) -> tuple[int, ...]:
    """Return the block numbers in a block of pointers, or in i_block."""
    return unpack(f"<{len(data) // 4}I", data)


def file_pieces(fs: FileSystem, inode: StoredInode, most: int = _MAX_BLOCKS) -> Iterator[FilePiece]:
    """Yield the runs of blocks with the stored parts of a file's first most blocks, ascending; the rest reads as zero:
    holes, and blocks that are allocated but were never written.

    Raises NotBelievedError when the map is damaged, and as reading does.
    """
    for first, at, count, is_written in MapReader(fs, inode, most).pieces():
        if is_written:
            yield first, at, count


class MapReader:
    """The map of one file, up to most blocks of it; nodes are the map's own blocks that pieces() has visited."""

    def __init__(self, fs: FileSystem, inode: StoredInode, most: int = _MAX_BLOCKS) -> None:
        self._fs = fs
        self._inode = inode
        self._most = most
        self._next = 0  # the smallest valid first block of the next piece
        self._taken = self._visited = 0
        self.nodes: dict[int, None] = {}  # an ordered set
        # Android's images share blocks, also within a file.
        self._shares = RoCompat.SHARED_BLOCKS in fs.geometry.features

    def pieces(self) -> Iterator[tuple[int, int, int, bool]]:
        """Yield (first block of the file, its location, number of blocks, whether they were written), ascending.

        Raises as file_pieces() does.
        """
        is_extents = self._inode.flags & layout.EXTENTS_FLAG
        found = self._extents(self._inode.i_block) if is_extents else self._pointers(self._inode.i_block)
        for first, at, count, is_written in found:
            if first >= self._most:
                return
            self._take(first, at, count)
            yield first, at, min(count, self._most - first), is_written

    def _extents(self, node: bytes, depth: int | None = None) -> Iterator[tuple[int, int, int, bool]]:
        """Yield the pieces of an extent tree below node, whose depth is known except for the root's."""
        magic, entries, _, found, _ = layout.EXTENT_HEADER.values(node)
        fitting = (len(node) - layout.EXTENT_HEADER.size) // layout.EXTENT.size
        sound = magic == layout.EXTENT_MAGIC and entries <= fitting
        if not sound or (found != depth if depth is not None else found > _MAX_DEPTH):
            raise self._damaged("its extent tree has no sound header")
        for index in range(entries):
            at = layout.EXTENT_HEADER.size + index * layout.EXTENT.size
            if found:
                entry = layout.EXTENT_INDEX.unpack(node, at)
                block = int(entry["ei_leaf_lo"]) | int(entry["ei_leaf_hi"]) << 32
                if entry["ei_block"] < self._next:
                    raise self._damaged("its extents are not in order")
                yield from self._extents(self._extent_node(block), found - 1)
                self._next = max(self._next, int(entry["ei_block"]) + 1)
                continue
            first, length, high, low = layout.EXTENT.values(node, at)
            if not length:
                raise self._damaged("it has an extent of length 0")
            is_written = length <= layout.EXTENT_MAX_LENGTH
            yield first, low | high << 32, length - (0 if is_written else layout.EXTENT_MAX_LENGTH), is_written

    def _pointers(self, i_block: bytes) -> Iterator[tuple[int, int, int, bool]]:
        """Yield the blocks of a block map, neighbours as one piece."""
        first = at = count = 0
        for index, block in self._mapped(pointers_in(i_block)):
            if count and block == at + count and index == first + count:
                count += 1
                continue
            if count:
                yield first, at, count, True
            first, at, count = index, block, 1
        if count:
            yield first, at, count, True

    def _mapped(self, numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield (block of the file, its location) of every block that is not a hole."""
        for index, block in enumerate(numbers[: layout.DIRECT_BLOCKS]):
            if block:
                yield index, block
        first, per_block = layout.DIRECT_BLOCKS, self._fs.geometry.block_size // 4
        for depth in range(3):
            yield from self._indirect(numbers[layout.DIRECT_BLOCKS + depth], depth, first)
            first += per_block ** (depth + 1)

    def _indirect(self, block: int, depth: int, first: int) -> Iterator[tuple[int, int]]:
        if not block or first >= self._most:
            return
        data = self._node(block)
        if not data.strip(b"\0"):  # invalid pointers, to blocks of a sparse image, can be a million of these
            return
        numbers = pointers_in(data)
        span = len(numbers) ** depth
        for index, number in enumerate(numbers):
            if not number:
                continue
            if depth:
                yield from self._indirect(number, depth - 1, first + index * span)
            else:
                yield first + index, number

    def _take(self, first: int, at: int, count: int) -> None:
        """Check that a piece follows the previous ones, is inside the file system, and that the file has not too many
        blocks.
        """
        if first < self._next or first + count > _MAX_BLOCKS:
            raise self._damaged("its extents are not in order")
        self._next = first + count
        self._checked(at, count)
        self._taken += count
        if self._taken > self._fs.geometry.blocks and not self._shares:
            raise self._damaged(f"it has more blocks than the file system, which has {self._fs.geometry.blocks}")

    def _node(self, block: int) -> bytes:
        if block in self.nodes and not self._shares:
            raise self._damaged(f"its map has block {block} twice")
        self.nodes[block] = None
        self._visited += 1
        if self._visited > self._fs.geometry.blocks:
            raise self._damaged(f"its map has more blocks than the file system, which has {self._fs.geometry.blocks}")
        return self._fs.read(self._checked(block, 1))

    def _extent_node(self, block: int) -> bytes:
        data = self._node(block)
        if not self._fs.checksums.extent_block_holds(self._inode.seed, data):
            raise self._damaged(f"the checksum of block {block} of its extent tree is wrong")
        return data

    def _checked(self, block: int, count: int) -> int:
        geometry = self._fs.geometry
        if not geometry.first_data_block <= block <= geometry.blocks - count:
            raise self._damaged(f"it names block {block} of {geometry.blocks}")
        return block

    def _damaged(self, what: str) -> NotBelievedError:
        return self._fs.not_believed(f"{inode_name(self._inode.number)}: {what}")
