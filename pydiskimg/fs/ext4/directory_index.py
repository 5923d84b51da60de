# SPDX-License-Identifier: MIT
"""The tree of hashes of a directory, by which a name is found without reading the whole directory (hash_index.rst).

    | dx_root: ".", "..", table | dx_node: table ... | leaf | leaf | ...

A table has entries (hash, block of the directory) in ascending order: names with this hash or higher ones are in that
block or below it. The lowest bit of a hash says that the previous block also has names with the same hash.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.directory_entries import block_entries, checked_block
from pydiskimg.fs.ext4.directory_hash import COMPUTED_HASHES, DirectoryHash, table_limit
from pydiskimg.fs.ext4.features import Compat, Incompat
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.map_reader import FilePiece, file_pieces

_BLOCK_BITS = 0x0FFFFFFF  # of a block's number in a table
_KEPT_TABLES = 64  # of a directory; 40 KB of memory each


class DamagedIndexError(Exception):
    """A directory's tree of hashes is damaged and does not lead to a leaf."""


class NoIndexError(DamagedIndexError):
    """A directory has no tree of hashes, or one with a hash that is not implemented here."""


@dataclass(slots=True)
class Table:
    """The table of one block of hashes, which begins at byte start; the first of its hashes is 0."""

    start: int
    hashes: list[int]
    blocks: list[int]

    def position(self, wanted: int) -> int:
        """Return the index of the entry that leads to a hash."""
        return max(bisect_right(self.hashes, wanted) - 1, 0)


@dataclass(slots=True)
class TableStep:
    """A table on the way down: its block of the directory, and the index of the entry that is followed."""

    number: int
    table: Table
    position: int


Path = list[TableStep]


class DirectoryIndex:
    """The tree of hashes of the directory of inode.

    Every call raises DamagedIndexError if it is damaged, NotBelievedError if the directory's map is, and as reading
    does.
    """

    def __init__(self, fs: FileSystem, inode: StoredInode, hashing: DirectoryHash, levels: int) -> None:
        self.hashing = hashing
        self.levels = levels
        """The number of tables below the root's on the way to a leaf."""
        self._fs = fs
        self._inode = inode
        self.blocks = inode.size // fs.geometry.block_size
        self._pieces: list[FilePiece] = list(file_pieces(fs, inode, self.blocks))
        self._tables: dict[int, Table] = {}

    def where(self, number: int) -> int:
        """Return the block of the file system for block number of the directory."""
        at = bisect_right(self._pieces, number, key=_first_block) - 1
        if at >= 0:
            first, start, count = self._pieces[at]
            if number < first + count:
                return start + number - first
        raise DamagedIndexError(f"the directory has no block {number}")

    def path(self, wanted: int) -> Path:
        """Return the tables on the way to the first leaf that may have names of this hash."""
        steps: Path = []
        number = 0
        for _ in range(self.levels + 1):
            table = self.table(number)
            steps.append(TableStep(number, table, table.position(wanted)))
            number = table.blocks[steps[-1].position]
        return steps

    def find(self, name: bytes) -> int | None:
        """Return the inode of a name."""
        for number in self.leaves(name):
            block = checked_block(self._fs, self._inode, number, self.where(number))
            found = next(block_entries(self._fs, self._inode, block, name), None)
            if found is not None:
                return found[1]
        return None

    def leaves(self, name: bytes) -> Iterator[int]:
        """Yield the blocks of the directory that may contain a name: several if names have the same hash."""
        wanted = self.hashing(name)
        steps = self.path(wanted)
        for _ in range(self.blocks):
            yield steps[-1].table.blocks[steps[-1].position]
            if not self._goes_on(steps, wanted):
                return
        raise DamagedIndexError("more blocks continue one hash than the directory has")

    def _goes_on(self, steps: Path, wanted: int) -> bool:
        """Move to the next leaf; False unless it continues names with this hash."""
        for depth in range(len(steps) - 1, -1, -1):
            step = steps[depth]
            if step.position + 1 < len(step.table.hashes):
                break
        else:
            return False
        step.position += 1
        if step.table.hashes[step.position] != wanted | 1:
            return False
        for below in range(depth + 1, len(steps)):
            number = steps[below - 1].table.blocks[steps[below - 1].position]
            steps[below] = TableStep(number, self.table(number), 0)
        return True

    def table(self, number: int) -> Table:
        """Return the table of a block of hashes; call keep() after changing it."""
        found = self._tables.get(number)
        if found is None:
            if len(self._tables) >= _KEPT_TABLES:
                self._tables.clear()
            found = self._tables[number] = self._read(number)
        return found

    def keep(self, number: int, table: Table) -> None:
        """Note that another table was written to a block of hashes."""
        self._tables[number] = table

    def add(self, number: int, block: int) -> None:
        """Append one block to the directory, given by its number in the file system."""
        self._pieces.append((number, block, 1))
        self.blocks = number + 1

    def _limit(self, start: int) -> int:
        return table_limit(self._fs.geometry.block_size, start, has_checksums=self._fs.checksums.active)

    def _read(self, number: int) -> Table:
        block, start = self._fs.read(self.where(number)), layout.DX_NODE.size if number else layout.DX_ROOT.size
        limit, count, first = layout.DX_COUNT_LIMIT.values(block, start)
        if limit != self._limit(start) or not 0 < count <= limit:
            raise DamagedIndexError(f"block {number} has a table for {limit} entries with {count} in use")
        if not self._fs.checksums.index_block_holds(self._inode.seed, block, start):
            raise DamagedIndexError(f"the checksum of block {number} is wrong")
        pairs = struct.unpack_from(f"<{2 * count - 2}I", block, start + layout.DX_ENTRY.size)
        blocks = [first & _BLOCK_BITS, *(block & _BLOCK_BITS for block in pairs[1::2])]
        return Table(start, [0, *pairs[::2]], blocks)


def opened_index(fs: FileSystem, inode: StoredInode) -> DirectoryIndex:
    """Return the tree of hashes of a directory.

    Raises NoIndexError if it has none, or one with a hash that is not implemented here, NotBelievedError if the
    directory's map is damaged, and as reading does.
    """
    is_hashed = inode.flags & layout.INDEX_FLAG and Compat.DIR_INDEX in fs.geometry.features
    if not is_hashed or inode.flags & (layout.INLINE_DATA_FLAG | layout.CASEFOLD_FLAG | layout.ENCRYPT_FLAG):
        raise NoIndexError("the directory has no tree of hashes that can be read here")
    first = next(file_pieces(fs, inode, 1), None)
    if first is None or first[0]:
        raise NoIndexError("the directory has no first block")
    root = layout.DX_ROOT.unpack(fs.read(first[1]))
    version, levels = int(root["hash_version"]), int(root["indirect_levels"])
    is_sound = not root["reserved_zero"] and root["info_length"] == layout.DX_ROOT_INFO_LENGTH
    if not is_sound or version not in COMPUTED_HASHES or levels > most_levels(fs):
        raise NoIndexError(f"the root of its tree of hashes has the version {version} and {levels} levels")
    return DirectoryIndex(fs, inode, directory_hash(fs, version), levels)


def directory_hash(fs: FileSystem, version: int = layout.HASH_HALF_MD4) -> DirectoryHash:
    """Return the hash of a file system's directories."""
    superblock = fs.superblock
    is_signed = not superblock.number("s_flags") & layout.UNSIGNED_HASH
    return DirectoryHash(bytes(superblock.fields["s_hash_seed"]), is_signed=is_signed, version=version)


def most_levels(fs: FileSystem) -> int:
    """Return how many tables there may be below the root's on the way to a leaf."""
    return 2 if Incompat.LARGEDIR in fs.geometry.features else 1


def _first_block(piece: FilePiece) -> int:
    return piece[0]
