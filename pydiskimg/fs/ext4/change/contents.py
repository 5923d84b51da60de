# SPDX-License-Identifier: MIT
"""Replace, extend and truncate the contents of a file: always in free blocks, so that the old contents stay intact.

A unit is a cluster, which is one block except with bigalloc: all its blocks belong to one file, and stay together.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydiskimg.files.entry import unordered
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.bitmaps import Run, total
from pydiskimg.fs.ext4.change.inodes import changed, value_blocks
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.features import Incompat, RoCompat
from pydiskimg.fs.ext4.inode_fields import largest_file, size_fields
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.map_reader import MapReader
from pydiskimg.fs.ext4.map_writer import EncodedMap, MapPiece, extent_tree, pointer_tree
from pydiskimg.fs.ext4.tree.files import RefusedError
from pydiskimg.protocols import Buffer
from pydiskimg.records import Value
from pydiskimg.units import MIB

_AT_ONCE = 4 * MIB  # bytes of a file that are gathered for one write
_MAX_PIECES = 1 << 20  # about 150 bytes of memory each
_LARGE_FILE = 1 << 31  # bytes from which the feature large_file is needed

Pieces = Iterable[tuple[int, Buffer]]
"""(offset, bytes) of a file, ascending, with holes between them. Each piece is valid until the next."""


class Contents:
    """The locations of one file's contents while they are changed; finished() returns the resulting inode.

    pieces are the file's runs, nodes the blocks of the map on the disk.
    """

    def __init__(self, transaction: Transaction, inode: StoredInode) -> None:
        """Raises RefusedError for a file in too many pieces, NotBelievedError for a damaged map."""
        self._transaction = transaction
        self._geometry = transaction.fs.geometry
        self._unit = self._geometry.cluster_blocks
        self._inode = inode
        self._goal = self._geometry.group_start((inode.number - 1) // self._geometry.inodes_per_group)
        self.pieces: list[MapPiece] = []
        self.nodes: list[int] = []
        if has_map(inode):
            reader = MapReader(transaction.fs, inode)
            for piece in reader.pieces():
                self.pieces.append(piece)
                if len(self.pieces) > _MAX_PIECES:
                    raise RefusedError(f"is in more than {_MAX_PIECES} pieces", errno.EFBIG)
            self.nodes = list(reader.nodes)

    def cut(self, size: int) -> bytes:
        """Free the units from the one with the byte size on, and return the bytes of that unit before size.

        Nothing is returned if these are all zero.
        """
        bytes_per_unit = self._unit * self._geometry.block_size
        units, rest = divmod(size, bytes_per_unit)
        end = units * self._unit
        tail = self._tail(end, rest)
        kept: list[MapPiece] = []
        freed: list[MapPiece] = []
        for first, at, count, is_written in self.pieces:
            inside = max(min(end - first, count), 0)
            if inside:
                kept.append((first, at, inside, is_written))
            if count > inside:
                freed.append((first + inside, at + inside, count - inside, is_written))
        for start, stop in self.runs(freed):
            self._transaction.free(start, stop)
        self.pieces = kept
        return tail.rstrip(b"\0") and tail

    def add(self, data: Pieces, size: int) -> None:
        """Write data, whose offsets lie after all pieces, into free blocks; size is that of the file, in bytes.

        Raises OutOfSpaceError, RefusedError for a size that is too large, StorageError as writing does.
        """
        block_size = self._geometry.block_size
        most = largest_file(self._geometry.features, block_size)
        if size > most:
            raise RefusedError(f"would have {size} bytes, more than a file can have here ({most})", errno.EFBIG)
        for offset, chunk in _aligned(data, self._unit * block_size):
            self._write(offset // block_size, chunk)

    def add_metadata(self, data: bytes) -> None:
        """Write the blocks of a directory, or of a symlink's target, with the commit, because they may change again."""
        size = self._geometry.block_size
        for first, start, count in self._allocated(0, -(-len(data) // size)):
            for index in range(count):
                at = (first + index) * size
                self._transaction.put(start + index, data[at : at + size].ljust(size, b"\0"))

    def add_blocks(self, blocks: Mapping[int, Buffer]) -> None:
        """Write blocks by number to a file of metadata that does not have them yet; with the commit."""
        for first, data in blocks.items():
            self.add_block(first, data)
        self.pieces.sort()

    def add_block(self, first: int, data: Buffer) -> int:
        """Append a block to a file of metadata, and return its location; with the commit."""
        block = self._in_known_cluster(first)
        if block is None:
            goal = self.pieces[-1][1] + self.pieces[-1][2] if self.pieces else self._goal
            block = self._transaction.blocks.allocate(goal, 1)[0] + first % self._unit
        self._transaction.put(block, data)
        self.pieces.append((first, block, 1, True))
        return block

    def _in_known_cluster(self, block: int) -> int | None:
        """Return the location for a block of the file whose cluster already has another block; None if it does not."""
        if self._unit == 1:
            return None
        for first, at, count, _ in self.pieces:
            nearest = min(max(block, first), first + count - 1)
            if nearest // self._unit == block // self._unit:
                return at + block - first
        return None

    def finished(self, size: int) -> StoredInode:
        """Return the inode of this size, with a new map."""
        self._free_nodes()
        values, nodes = self._map()
        for block, node in nodes.items():
            self._transaction.put(block, node)
        if size >= _LARGE_FILE and self._inode.kind == layout.REGULAR_FILE:
            self._transaction.require(RoCompat.LARGE_FILE, errno.EFBIG)
        values |= {**size_fields(size), **block_fields(self._transaction, int(values["i_flags"]), self.blocks)}
        return changed(self._inode, values)

    def given_back(self) -> dict[str, Value]:
        """Free all blocks, including the map's, and return the fields of an empty inode, to be stored with others."""
        self.cut(0)
        self._free_nodes()
        return self._map()[0] | size_fields(0)

    def _free_nodes(self) -> None:
        for block in self.nodes:
            self._transaction.free(*self._geometry.cluster_of(block))

    def mapped(self) -> tuple[StoredInode, dict[int, bytearray]]:
        """Return the inode with a map of the pieces, and the contents of the newly allocated blocks of the map."""
        values, nodes = self._map()
        return changed(self._inode, values), nodes

    def _map(self) -> tuple[dict[str, Value], dict[int, bytearray]]:
        """Return the fields of the inode that map the pieces, and the contents of the map's blocks."""
        encoded = self._encoded()
        for node in encoded.nodes.values() if self._has_extents else ():
            self._transaction.fs.checksums.extent_block(self._inode.seed, node)
        self.nodes = list(encoded.nodes)
        flags = self._inode.flags & ~(layout.EXTENTS_FLAG | layout.INLINE_DATA_FLAG)
        flags |= layout.EXTENTS_FLAG if self._has_extents else 0
        return {"i_block": encoded.i_block, "i_flags": flags}, encoded.nodes

    @property
    def blocks(self) -> int:
        """The blocks of the file, including those of its map and its extended attributes."""
        others = len(self.nodes) + bool(self._inode.xattr_block)
        return total(self.runs(self.pieces)) + others * self._unit + value_blocks(self._transaction, self._inode)

    @property
    def _has_extents(self) -> bool:
        return Incompat.EXTENTS in self._geometry.features

    def _encoded(self) -> EncodedMap:
        def take() -> int:
            return self._transaction.blocks.allocate(self._goal, 1)[0]

        size = self._geometry.block_size
        if self._has_extents:
            return extent_tree(self.pieces, size, take)
        try:
            return pointer_tree(self.pieces, size, take)
        except ValueError as error:
            raise RefusedError(f"would be too large: {error}", errno.EFBIG) from error

    def _tail(self, first: int, length: int) -> bytes:
        """Return length bytes from block first of the file on, which are in one unit."""
        size = self._geometry.block_size
        tail = bytearray(-(-length // size) * size)
        for start, at, count, is_written in self.pieces:
            for block in range(max(start, first), min(start + count, first + len(tail) // size)) if is_written else ():
                data = self._transaction.read(at + block - start)
                tail[(block - first) * size : (block - first + 1) * size] = data
        return bytes(tail[:length])

    def _write(self, first: int, data: bytes) -> None:
        size = self._geometry.block_size
        view = memoryview(data + bytes(-len(data) % size))
        done = 0
        for _, start, count in self._allocated(first, len(view) // size):
            self._transaction.write_new(start, view[done * size : (done + count) * size])
            done += count

    def _allocated(self, first: int, blocks: int) -> Iterator[tuple[int, int, int]]:
        """Allocate blocks for the file, and yield (block of the file, its location, number of blocks)."""
        end = first + blocks
        while first < end:
            start, stop = self._transaction.blocks.allocate(self._goal, end - first)
            self.pieces.append((first, start, stop - start, True))
            self._goal = stop
            yield first, start, stop - start
            first += stop - start

    def runs(self, pieces: Sequence[MapPiece]) -> list[Run]:
        """Return the runs of blocks in the clusters of pieces, each cluster once."""
        runs: list[Run] = []
        for _, at, count, _ in pieces:
            start, end = self._geometry.cluster_of(at)[0], self._geometry.cluster_of(at + count - 1)[1]
            if runs and self._unit > 1 and runs[-1][1] - self._unit == start:
                start += self._unit  # another piece of the previous cluster
            if start < end:
                runs.append((start, end))
        return runs


def has_map(inode: StoredInode) -> bool:
    """True if i_block is a map, and not a device's number, a symlink's target, or the contents themselves."""
    if inode.flags & layout.INLINE_DATA_FLAG:
        return False
    if inode.kind == layout.SYMLINK:
        # The kernel recognises a fast symlink so: it counts at most the block of its extended attributes.
        return bool(inode.flags & layout.EXTENTS_FLAG) or inode.size >= len(inode.i_block)
    return inode.kind in (layout.REGULAR_FILE, layout.DIRECTORY)


def with_blocks(transaction: Transaction, inode: StoredInode, blocks: int) -> StoredInode:
    """Return an inode with the total number of its blocks."""
    return changed(inode, block_fields(transaction, inode.flags, blocks))


def block_fields(transaction: Transaction, flags: int, blocks: int) -> dict[str, Value]:
    """Return the fields of an inode with these flags for the total number of its blocks."""
    sectors = blocks * transaction.fs.geometry.block_size // 512
    flags &= ~layout.HUGE_FILE_FLAG
    if sectors >> 48 or (sectors >> 32 and RoCompat.HUGE_FILE not in transaction.fs.geometry.features):
        sectors, flags = blocks, flags | layout.HUGE_FILE_FLAG
        transaction.require(RoCompat.HUGE_FILE, errno.EFBIG)
    return {"i_blocks_lo": sectors & 0xFFFFFFFF, "i_blocks_high": sectors >> 32, "i_flags": flags}


def _aligned(data: Pieces, unit: int) -> Iterator[tuple[int, bytes]]:
    """Yield whole units of data from their first byte on, some MiB at a time; the last ones may be shorter."""
    start, gathered = 0, bytearray()
    for offset, piece in _sliced(data):
        aligned = offset - offset % unit
        if gathered and aligned > start + len(gathered):
            yield start, bytes(gathered)
            gathered.clear()
        if not gathered:
            start = aligned
        gathered += bytes(offset - start - len(gathered))
        gathered += piece
        if len(gathered) >= _AT_ONCE:
            whole = len(gathered) - len(gathered) % unit
            yield start, bytes(gathered[:whole])
            del gathered[:whole]
            start += whole
    if gathered:
        yield start, bytes(gathered)


def _sliced(data: Pieces) -> Iterator[tuple[int, memoryview]]:
    end = 0
    for offset, piece in data:
        view = memoryview(piece)
        if offset < end:
            raise unordered(offset, end)
        end = offset + len(view)
        for at in range(0, len(view), _AT_ONCE):
            yield offset + at, view[at : at + _AT_ONCE]
