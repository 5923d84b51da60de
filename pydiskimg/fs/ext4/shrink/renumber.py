# SPDX-License-Identifier: MIT
"""Inodes of removed groups get numbers in remaining groups.

An inode and all references to it change together: the entries of directories, a directory's own "." and the ".." of its
subdirectories, attributes whose value it is, and the checksums of blocks that depend on the number of their inode.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.attributes import inline_data
from pydiskimg.fs.ext4.change.contents import has_map
from pydiskimg.fs.ext4.change.inodes import named_values, store
from pydiskimg.fs.ext4.change.leaf import Leaf
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.directory_entries import directory_blocks, hash_table
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.inodes import StoredInode, group_of_inode, inode_name, inode_table, read_inode
from pydiskimg.fs.ext4.map_reader import MapReader, file_pieces
from pydiskimg.fs.ext4.shrink.renumber_values import NamedValues, rename_values
from pydiskimg.fs.ext4.shrink.survey import inodes_in_use
from pydiskimg.fs.ext4.xattrs import first_entry, stored_entries

_I_BLOCK = layout.INODE.offsets["i_block"]
_PARENT = 4  # bytes of i_block, in a directory that is in its inode

_VALUE = 0xFFFFFFFF

NamingBlock = tuple[int, int]
"""The inode of a directory, and the number of its block that names an inode (0 for an inline directory); or an inode
with an attribute whose value it is, and _VALUE.
"""


class _NamingBlocks:
    """The blocks of directories that name an inode: 16 bytes for each, as they may be many."""

    def __init__(self) -> None:
        self._directories, self._blocks = array("I"), array("I")
        self._keys = array("Q")  # the inode and the position of its block above
        self._is_sorted = True

    def add(self, number: int, block: NamingBlock) -> None:
        if self._keys and self._keys[-1] >> 32 == number and self._last == block:
            return
        self._keys.append(number << 32 | len(self._blocks))
        self._directories.append(block[0])
        self._blocks.append(block[1])
        self._is_sorted = False

    def of(self, number: int) -> Iterator[NamingBlock]:
        if not self._is_sorted:
            self._keys = array("Q", sorted(self._keys))
            self._is_sorted = True
        at = bisect_left(self._keys, number << 32)
        while at < len(self._keys) and self._keys[at] >> 32 == number:
            position = self._keys[at] & 0xFFFFFFFF
            yield self._directories[position], self._blocks[position]
            at += 1

    @property
    def _last(self) -> NamingBlock:
        return self._directories[-1], self._blocks[-1]


class Renumbering:
    """The inodes after the last one that remains, and the blocks of directories that name them."""

    def __init__(self, transaction: Transaction, new: Geometry, leaving: Sequence[int]) -> None:
        """Read all directories. Raises NotBelievedError if one is damaged, and as reading does."""
        self._transaction = transaction
        self._fs = fs = transaction.fs
        self._last = new.inodes
        self._leaving = leaving
        self._renumbered: dict[int, int] = {}
        self._naming = _NamingBlocks()
        values = NamedValues(transaction)
        for inode in inodes_in_use(fs, transaction.groups):
            if inode.kind == layout.DIRECTORY:
                self._look(inode)
            for number in values.of(inode, self._last):
                self._note(number, (inode.number, _VALUE))
        # A value moves before the attributes that refer to it, and is not read by its old number: all were read above.
        transaction.usage.count_values = lambda inode: len(named_values(fs, inode))

    def run(self) -> None:
        """Give the inodes other numbers, in as many commits as necessary.

        Raises OutOfSpaceError, FileSystemError for a directory that is too large for the journal, NotBelievedError and
        StorageError as reading and writing do.
        """
        batch: list[int] = []
        cost = 0
        for number in self._leaving:
            more = self._cost(number)
            if batch and cost + more > self._transaction.room:
                self._apply(batch)
                batch, cost = [], 0
            batch.append(number)
            cost += more
        if batch:
            self._apply(batch)

    def _look(self, inode: StoredInode) -> None:
        """Note which of the inodes to be renumbered a directory names, and in which blocks."""
        if inode.flags & layout.INLINE_DATA_FLAG:
            self._note(int.from_bytes(inode.i_block[:_PARENT], "little"), (inode.number, 0))
        for index, block in enumerate(directory_blocks(self._fs, inode, inline_data(self._transaction, inode))):
            block_of_names = inode.number, 0 if inode.flags & layout.INLINE_DATA_FLAG else index
            for slot in Leaf(self._fs, block, inode_name(inode.number)).slots() if block else ():
                self._note(slot.inode, block_of_names)

    def _note(self, number: int, block_of_names: NamingBlock) -> None:
        if number > self._last:
            at = bisect_left(self._leaving, number)
            if at == len(self._leaving) or self._leaving[at] != number:
                raise self._fs.not_believed(
                    f"{inode_name(block_of_names[0])}: it names inode {number}, which is not in use"
                )
            self._naming.add(number, block_of_names)

    def _cost(self, number: int) -> int:
        """Return roughly how many blocks change."""
        inode = read_inode(self._fs, number)
        blocks = 0
        if has_map(inode) and self._fs.checksums.active:
            reader = MapReader(self._fs, inode)
            pieces = sum(count for _, _, count, _ in reader.pieces())
            blocks = len(reader.nodes) + (pieces if inode.kind == layout.DIRECTORY else 0)
        return 2 + blocks + sum(1 for _ in self._naming.of(number))

    def _apply(self, batch: list[int]) -> None:
        moves: dict[int, int] = {}
        touched: dict[int, set[int]] = {}
        owners: set[int] = set()
        for number in batch:
            inode = read_inode(self._fs, number)
            moves[number] = self._moved(inode)
            if inode.kind == layout.DIRECTORY and self._fs.checksums.active:
                touched.setdefault(number, set()).update(range(inode.size // self._fs.geometry.block_size))
            for directory, index in self._naming.of(number):
                if index == _VALUE:
                    owners.add(directory)
                else:
                    touched.setdefault(directory, set()).add(index)
        self._renumbered |= moves
        for directory, blocks in touched.items():
            self._rename(self._inode(directory), blocks, moves)
        for owner in owners:
            rename_values(self._transaction, self._inode(owner), moves)
        self._transaction.commit()

    def _inode(self, number: int) -> StoredInode:
        """Return the inode with a previous number."""
        return read_inode(self._fs, self._renumbered.get(number, number))

    def _moved(self, inode: StoredInode) -> int:
        """Store an inode under a new number, and return that; the old inode is zeroed and freed."""
        transaction, fs = self._transaction, self._fs
        is_directory = inode.kind == layout.DIRECTORY
        number = transaction.inodes.allocate(inode.number, is_directory=is_directory)
        group, index = group_of_inode(fs, number)
        block, offset = divmod(index * fs.geometry.inode_size, fs.geometry.block_size)
        generation = inode.raw[layout.INODE.slice_of("i_generation")]
        seed = fs.checksums.for_inode(number, generation)
        if fs.checksums.active and inode.flags & layout.EXTENTS_FLAG and has_map(inode):
            reader = MapReader(fs, inode)
            for _ in reader.pieces():
                pass
            for node in reader.nodes:
                data = bytearray(fs.read(node))
                fs.checksums.extent_block(seed, data)
                transaction.put(node, data)
        transaction.usage.renumbered(inode, number)
        store(transaction, StoredInode(number, inode_table(fs, group) + block, offset, inode.raw, seed))
        transaction.patch(inode.block, inode.offset, bytes(len(inode.raw)))
        transaction.inodes.free(inode.number, is_directory=is_directory)
        return number

    def _rename(self, inode: StoredInode, blocks: set[int], moves: Mapping[int, int]) -> None:
        """Update the inode numbers in blocks of a directory, and their checksums by the directory's own number."""
        if inode.flags & layout.INLINE_DATA_FLAG:
            self._rename_inside(inode, moves)
            return
        for first, at, count in file_pieces(self._fs, inode, inode.size // self._fs.geometry.block_size):
            for index in range(count):
                if first + index in blocks:
                    self._rename_block(inode, first + index, at + index, moves)

    def _rename_block(self, inode: StoredInode, number: int, block: int, moves: Mapping[int, int]) -> None:
        data = self._transaction.read(block)
        leaf = Leaf(self._fs, data, inode_name(inode.number))
        _rename_slots(leaf, moves)
        table = hash_table(self._fs, inode, number, data)
        if table is None:
            self._transaction.put(block, leaf.sealed(inode.seed))
        else:
            self._fs.checksums.index_block(inode.seed, leaf.data, table)
            self._transaction.put(block, leaf.data)

    def _rename_inside(self, inode: StoredInode, moves: Mapping[int, int]) -> None:
        raw = bytearray(inode.raw)
        parent = int.from_bytes(inode.i_block[:_PARENT], "little")
        raw[_I_BLOCK : _I_BLOCK + _PARENT] = moves.get(parent, parent).to_bytes(4, "little")
        end = min(inode.size, len(inode.i_block))
        for start, stop in ((_I_BLOCK + _PARENT, _I_BLOCK + end), *_inline_value(inode)):
            leaf = Leaf(self._fs, bytes(raw[start:stop]), inode_name(inode.number))
            _rename_slots(leaf, moves)
            raw[start:stop] = leaf.data
        store(self._transaction, inode.with_raw(bytes(raw)))


def _rename_slots(leaf: Leaf, moves: Mapping[int, int]) -> None:
    for slot in leaf.slots():
        number = moves.get(slot.inode)
        if number is not None:
            leaf.data[slot.offset : slot.offset + 4] = number.to_bytes(4, "little")


def _inline_value(inode: StoredInode) -> Iterator[tuple[int, int]]:
    """Yield the range in the inode of its inline contents after i_block."""
    first = first_entry(inode)
    for at, _, entry in stored_entries(inode.raw, first) if first else ():
        name = inode.raw[at + layout.XATTR_ENTRY.size :][: entry["e_name_len"]]
        if (entry["e_name_index"], name) == layout.XATTR_INLINE_DATA and entry["e_value_size"]:
            start = first + entry["e_value_offs"]
            yield start, min(start + entry["e_value_size"], len(inode.raw))
