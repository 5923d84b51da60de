# SPDX-License-Identifier: MIT
"""Copy blocks from beyond the new end into free blocks before it, and point their inodes there.

The copies and the blocks of the new map take effect only with the inode, and the blocks beyond the end are not
overwritten: at every instant an inode leads to its contents, old or new.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter

from pydiskimg.crc32c import crc32c
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.contents import Contents
from pydiskimg.fs.ext4.change.inodes import changed, store
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.features import Compat
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name, read_inode
from pydiskimg.fs.ext4.map_writer import MapPiece
from pydiskimg.fs.ext4.shrink.leaving import LeavingBlocks
from pydiskimg.fs.ext4.xattr_writer import seal_block
from pydiskimg.units import MIB

Move = tuple[int, int, int]
"""First block of a run that must become empty, its new location, and the number of blocks."""


class BlockMover:
    """Moves blocks that must become empty, in a transaction that allocates none of those."""

    def __init__(self, transaction: Transaction, leaving: LeavingBlocks) -> None:
        self._transaction = transaction
        self._fs = transaction.fs
        self._leaving = leaving
        self._at_once = max(MIB // self._fs.geometry.block_size, 1)
        has_orphan_file = Compat.ORPHAN_FILE in self._fs.geometry.features
        self._orphan_file = self._fs.superblock.number("s_orphan_file_inum") if has_orphan_file else 0

    def file(self, number: int) -> None:
        """Move the contents of a file, and the blocks of its map.

        Raises OutOfSpaceError, NotBelievedError for a damaged map, StorageError as reading and writing do.
        """
        inode = read_inode(self._fs, number)
        contents = Contents(self._transaction, inode)
        moves = self.moves(contents)
        contents.pieces = self._moved(inode, contents.pieces, moves)
        for start, _, count in moves:
            self._transaction.free(start, start + count)
        store(self._transaction, contents.finished(inode.size))

    def moves(self, contents: Contents) -> list[Move]:
        """Allocate blocks for the contents that must move; ascending."""
        moving = [
            (first, at, count, is_written)
            for first, start, length, is_written in contents.pieces
            for at, count, leaves in self._leaving.parts(start, length)
            if leaves
        ]
        found: list[Move] = []
        goal = self._goal(contents.pieces)
        for start, end in contents.runs(moving):
            at = start
            while at < end:
                new, stop = self._transaction.blocks.allocate(goal, end - at)
                found.append((at, new, stop - new))
                at += stop - new
                goal = stop
        return sorted(found)

    def pieces(self, pieces: list[MapPiece], moves: list[Move]) -> Iterator[tuple[MapPiece, int]]:
        """Yield the pieces of a file as they are after its blocks have moved, each with its previous location."""
        for first, at, count, is_written in pieces:
            for start, length, leaves in self._leaving.parts(at, count):
                for old, new, together in _moved(start, length, moves) if leaves else [(start, start, length)]:
                    yield (first + old - at, new, together, is_written), old

    def attributes(self, block: int, numbers: list[int]) -> None:
        """Move a block of extended attributes that inodes share."""
        transaction, checksums = self._transaction, self._fs.checksums
        data = bytearray(self._fs.read(self._checked(block, numbers[0])))
        header = layout.XATTR_HEADER.unpack(data)
        if checksums.active and header["h_checksum"] != checksums.xattr_block(block, bytes(data)):
            raise self._fs.not_believed(f"the checksum of block {block}, of extended attributes, is wrong")
        new = transaction.blocks.allocate(self._group_of(numbers[0]), 1)[0]
        seal_block(data, new, checksums)
        transaction.put(new, data)
        for number in numbers:
            inode = read_inode(self._fs, number)
            values = {"i_file_acl_lo": new & 0xFFFFFFFF, "i_file_acl_high": new >> 32}
            store(transaction, changed(inode, values))
        transaction.free(*self._fs.geometry.cluster_of(block))

    def reserve(self) -> None:
        """Move the double indirect block of the resize inode; the blocks that it points to stay."""
        inode = read_inode(self._fs, layout.RESIZE_INODE)
        at = layout.DIRECT_BLOCKS * 4 + 4
        old = int.from_bytes(inode.i_block[at : at + 4], "little")
        if not self._leaving.touch(old):
            return
        data = self._fs.read(self._checked(old, inode.number))
        new = self._transaction.blocks.allocate(self._group_of(inode.number), 1)[0]
        self._transaction.put(new, data)
        i_block = inode.i_block[:at] + new.to_bytes(4, "little") + inode.i_block[at + 4 :]
        store(self._transaction, changed(inode, {"i_block": i_block}))
        self._transaction.free(*self._fs.geometry.cluster_of(old))

    def mount_protection(self, old: int) -> int:
        """Move the block of multiple mount protection, and return its new location. Errors as for file()."""
        geometry = self._fs.geometry
        new = self._transaction.blocks.allocate(geometry.first_data_block, 1)[0]
        self._transaction.put(new, self._fs.read(old))
        self._transaction.set_superblock({"s_mmp_block": new})
        self._transaction.free(*geometry.cluster_of(old))
        return new

    def _moved(self, inode: StoredInode, pieces: list[MapPiece], moves: list[Move]) -> list[MapPiece]:
        """Copy the written blocks, and return the pieces at their new locations."""
        found = []
        for piece, old in self.pieces(pieces, moves):
            found.append(piece)
            _, new, count, is_written = piece
            if old != new and is_written:
                self._copy(inode, old, new, count)
        return found

    def _copy(self, inode: StoredInode, old: int, new: int, count: int) -> None:
        size = self._fs.geometry.block_size
        for done in range(0, count, self._at_once):
            data = bytearray(self._fs.read(old + done, min(self._at_once, count - done)))
            if inode.number == self._orphan_file:
                for at in range(0, len(data), size):
                    data[at : at + size] = self._orphan_block(inode, data[at : at + size], new + done + at // size)
            self._transaction.write_new(new + done, data)

    def _orphan_block(self, inode: StoredInode, data: bytearray, block: int) -> bytearray:
        """Return a block of the orphan file with its checksum, which depends on its location."""
        if self._fs.checksums.active:
            tail = len(data) - layout.ORPHAN_TAIL.size
            value = crc32c(data[:tail], crc32c(block.to_bytes(8, "little"), inode.seed))
            layout.ORPHAN_TAIL.put(data, {"ob_checksum": value}, tail)
        return data

    def _checked(self, block: int, number: int) -> int:
        if block >= self._fs.geometry.blocks:
            raise self._fs.not_believed(f"{inode_name(number)}: it names block {block} of {self._fs.geometry.blocks}")
        return block

    def _goal(self, pieces: list[MapPiece]) -> int:
        """Return the best location for the moved part of a file: after the part that stays."""
        inside = [at + count for _, at, count, _ in pieces if not self._leaving.touch(at, count)]
        return inside[-1] if inside else self._fs.geometry.first_data_block

    def _group_of(self, number: int) -> int:
        geometry = self._fs.geometry
        return geometry.group_start((number - 1) // geometry.inodes_per_group)


def _moved(start: int, count: int, moves: list[Move]) -> Iterator[Move]:
    """Yield the new locations of blocks that all move, in runs that stay contiguous."""
    end = start + count
    while start < end:
        first, new, room = moves[bisect_right(moves, start, key=itemgetter(0)) - 1]
        length = min(end, first + room) - start
        yield start, new + start - first, length
        start += length
