# SPDX-License-Identifier: MIT
"""Add names to a directory's tree of hashes: a full leaf or table is split in two.

Only a few blocks change, for any size of the directory. They change together, through a journal: otherwise names
would be in two leaves for a moment.
"""

from __future__ import annotations

from itertools import islice

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.contents import Contents
from pydiskimg.fs.ext4.change.leaf import Leaf
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.directory_index import DamagedIndexError, DirectoryIndex, Path, Table, TableStep, most_levels
from pydiskimg.fs.ext4.directory_writer import DirectoryEntry, DirectoryWriter, entry_length
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name

Entry = tuple[bytes, int, int]
"""A name, its inode and its file_type."""

_LEVELS = layout.DX_ROOT.offsets["indirect_levels"]


class GrowingIndex:
    """The tree of hashes of a directory to which names are added; finished() then returns the directory's inode.

    Raises DamagedIndexError if the tree is damaged or cannot grow; the caller must then restore the transaction or
    write the whole directory again. Raises RefusedError, OutOfSpaceError and NotBelievedError as Contents does.
    """

    def __init__(
        self, transaction: Transaction, inode: StoredInode, index: DirectoryIndex, writer: DirectoryWriter
    ) -> None:
        self._transaction = transaction
        self._fs = transaction.fs
        self._inode = inode
        self._index = index
        self._writer = writer
        self._contents: Contents | None = None
        self._blocks = index.blocks

    def put(self, entries: list[Entry]) -> None:
        """Add names, or point existing ones to other inodes."""
        hashes = self._index.hashing.of_each(entry[0] for entry in entries)
        hashed = sorted(zip(hashes, entries, strict=True))
        at = 0
        while at < len(hashed):
            at = self._put_into_one(hashed, at)

    def finished(self) -> StoredInode:
        """Return the inode of the directory, of its new size."""
        if self._contents is None:
            return self._inode
        return self._contents.finished(self._blocks * self._fs.geometry.block_size)

    def _put_into_one(self, hashed: list[tuple[int, Entry]], at: int) -> int:
        """Add names from at on that belong into one leaf, as many as fit; return the index of the next name."""
        path = self._index.path(hashed[at][0])
        highest, stop = _highest(path), at + 1
        while stop < len(hashed) and (highest is None or hashed[stop][0] < highest):
            stop += 1
        number = path[-1].table.blocks[path[-1].position]
        block = self._index.where(number)
        leaf, first = Leaf.read(self._fs, block, self._inode), at
        while at < stop and self._put_one(leaf, path, hashed[at][1]):
            at += 1
        if at > first:
            self._transaction.put(block, leaf.sealed(self._inode.seed))
        if at < stop:
            self._split_leaf(path, number, hashed[at][1][0])
        return at

    def _put_one(self, leaf: Leaf, path: Path, entry: Entry) -> bool:
        """Add a name to the leaf at the end of path; False if it has no room."""
        name, inode, file_type = entry
        is_there = leaf.point(name, inode, file_type) or self._point_after(path, entry)
        return is_there or leaf.insert(inode, name, file_type)

    def _point_after(self, path: Path, entry: Entry) -> bool:
        """Point a name to another inode in a leaf that continues the hashes of the leaf at the end of path."""
        name, inode, file_type = entry
        step = path[-1]
        is_last = step.position + 1 == len(step.table.hashes)
        if not is_last and not step.table.hashes[step.position + 1] & 1:
            return False
        for number in islice(self._index.leaves(name), 1, None):
            block = self._index.where(number)
            leaf = Leaf.read(self._fs, block, self._inode)
            if leaf.point(name, inode, file_type):
                self._transaction.put(block, leaf.sealed(self._inode.seed))
                return True
        return False

    def _split_leaf(self, path: Path, number: int, name: bytes) -> None:
        """Move the upper half of a leaf's names, by their hashes, into a new one, to make room for name."""
        block = self._index.where(number)
        slots = [slot for slot in Leaf.read(self._fs, block, self._inode).slots() if slot.inode]
        hashes = self._index.hashing.of_each(slot.name for slot in slots)
        entries: list[DirectoryEntry] = [(slot.inode, slot.name, slot.file_type) for slot in slots]
        hashed = sorted(zip(hashes, entries, strict=True))
        if len(hashed) < 2:
            raise DamagedIndexError(f"block {number} has no room for a name of {len(name)} bytes")
        middle = _middle([entry_length(entry[1]) for _, entry in hashed])
        upper = hashed[middle][0]
        goes_on = hashed[middle - 1][0] == upper
        self._make_room(path)
        self._transaction.put(block, self._writer.leaf([entry for _, entry in hashed[:middle]], self._inode.seed))
        new = self._add(self._writer.leaf([entry for _, entry in hashed[middle:]], self._inode.seed))
        self._enter(path[-1].number, path[-1].table, path[-1].position + 1, (upper | goes_on, new))

    def _make_room(self, path: Path) -> None:
        """Ensure that the last table of path has room for one more entry; path is then as before a change."""
        full = next((depth for depth in range(len(path) - 1, -1, -1) if not self._is_full(path[depth].table)), -1)
        if full == len(path) - 1:
            return
        if full < 0:
            self._add_level(path)
            full = 0
        for depth in range(full + 1, len(path)):
            self._split_table(path, depth)

    def _is_full(self, table: Table) -> bool:
        return len(table.hashes) >= self._writer.limit(table.start)

    def _add_level(self, path: Path) -> None:
        """Move the root's table into a block below it."""
        if self._index.levels >= most_levels(self._fs):
            raise DamagedIndexError(f"{inode_name(self._inode.number)}: its tree of hashes is full")
        root = path[0].table
        number = self._add(self._writer.node(self._inode.seed, [*zip(root.hashes, root.blocks, strict=True)]))
        below = Table(layout.DX_NODE.size, root.hashes, root.blocks)
        path.insert(1, TableStep(number, below, path[0].position))
        path[0].table, path[0].position = Table(root.start, [0], [number]), 0
        self._index.levels += 1
        self._store(0, path[0].table)

    def _split_table(self, path: Path, depth: int) -> None:
        """Move the upper half of a table into a new block; the table above has room."""
        step, above = path[depth], path[depth - 1]
        table, middle = step.table, len(step.table.hashes) // 2
        upper = Table(layout.DX_NODE.size, [0, *table.hashes[middle + 1 :]], table.blocks[middle:])
        first = table.hashes[middle]
        new = self._add(self._writer.node(self._inode.seed, [*zip(upper.hashes, upper.blocks, strict=True)]))
        step.table = Table(table.start, table.hashes[:middle], table.blocks[:middle])
        self._store(step.number, step.table)
        self._enter(above.number, above.table, above.position + 1, (first, new))
        if step.position >= middle:
            above.position += 1
            path[depth] = TableStep(new, upper, step.position - middle)

    def _enter(self, number: int, table: Table, position: int, entry: tuple[int, int]) -> None:
        table.hashes.insert(position, entry[0])
        table.blocks.insert(position, entry[1])
        self._store(number, table)

    def _store(self, number: int, table: Table) -> None:
        block = self._index.where(number)
        front = bytearray(self._transaction.read(block)[: table.start])
        if not number:
            front[_LEVELS] = self._index.levels
        entries = [*zip(table.hashes, table.blocks, strict=True)]
        self._transaction.put(block, self._writer.table(self._inode.seed, bytes(front), entries))
        self._index.keep(number, table)

    def _add(self, data: bytearray) -> int:
        """Append a block to the directory and return its number there."""
        if self._contents is None:
            self._contents = Contents(self._transaction, self._inode)
        number = self._blocks
        self._index.add(number, self._contents.add_block(number, data))
        self._blocks += 1
        return number


def _highest(path: Path) -> int | None:
    """Return the first hash of the next leaf; None if it is not in this table or the ones above."""
    for step in reversed(path):
        if step.position + 1 < len(step.table.hashes):
            return step.table.hashes[step.position + 1] & ~1
    return None


def _middle(lengths: list[int]) -> int:
    """Return how many entries take about half of all bytes, at least one and not all of them."""
    left, found = sum(lengths) // 2, 0
    while left > 0:
        left -= lengths[found]
        found += 1
    return min(max(found, 1), len(lengths) - 1)
