# SPDX-License-Identifier: MIT
"""Change the entries of a directory: in the block that holds them, in a tree of hashes that grows (index.py), or by
writing the whole directory again, as for a new file system: with hashes if it takes more than one block.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.attributes import inline_data, outlined
from pydiskimg.fs.ext4.change.contents import Contents
from pydiskimg.fs.ext4.change.index import GrowingIndex
from pydiskimg.fs.ext4.change.inodes import changed
from pydiskimg.fs.ext4.change.leaf import Leaf, has_entries
from pydiskimg.fs.ext4.change.transaction import Transaction, WriteOrder
from pydiskimg.fs.ext4.directory_entries import NamedInode, block_entries, directory_blocks
from pydiskimg.fs.ext4.directory_hash import DirectoryHash
from pydiskimg.fs.ext4.directory_index import (
    DamagedIndexError,
    DirectoryIndex,
    directory_hash,
    most_levels,
    opened_index,
)
from pydiskimg.fs.ext4.directory_writer import DirectoryWriter
from pydiskimg.fs.ext4.features import Compat, Incompat
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name
from pydiskimg.fs.ext4.map_reader import file_pieces
from pydiskimg.fs.ext4.tree.files import RefusedError

_DOTDOT = b".."
FEW_NAMES = 64  # names that are changed one by one, in their blocks
_BLOCKS_AT_ONCE = 16
LARGE_DIRECTORY = 1 << 20  # bytes of a directory from which any number of names is changed in their blocks


class ChangedDirectory:
    """The directory of an inode. inode is to be stored after its entries were changed."""

    def __init__(self, transaction: Transaction, inode: StoredInode) -> None:
        """Raises RefusedError for a file that is not a directory, or a directory that cannot be changed here."""
        if inode.kind != layout.DIRECTORY:
            raise RefusedError("is not a directory", errno.ENOTDIR)
        if inode.flags & (layout.ENCRYPT_FLAG | layout.CASEFOLD_FLAG):
            raise RefusedError("is a directory with encrypted or casefolded names", errno.EOPNOTSUPP)
        self._transaction = transaction
        self._fs = fs = transaction.fs
        self._hashing: DirectoryHash | None = None
        if Compat.DIR_INDEX in fs.geometry.features:
            self._hashing = directory_hash(fs)
        self._writer = DirectoryWriter(
            fs.geometry.block_size,
            fs.checksums,
            self._hashing,
            file_type=self._file_type(inode),
            most_levels=most_levels(fs),
        )
        self.inode = inode
        self._index: DirectoryIndex | None = None
        self.inode_order = WriteOrder.OTHERS
        """When to write the inode: together with the entries if all of them were written to new blocks."""

    def entries(self, wanted: bytes | None = None) -> Iterator[NamedInode]:
        """Yield the entries except "." and ".."; only those named wanted, if given. Raises NotBelievedError."""
        for block in directory_blocks(self._fs, self.inode, inline_data(self._transaction, self.inode)):
            yield from block_entries(self._fs, self.inode, block, wanted)

    def find(self, name: bytes) -> int | None:
        """Return the inode of a name."""
        if self.inode.size >= LARGE_DIRECTORY:
            with suppress(DamagedIndexError):
                return self._opened_index().find(name)
        return next((number for _, number, _ in self.entries(name)), None)

    def is_empty(self) -> bool:
        return next(self.entries(), None) is None

    def parent(self) -> int:
        """Return the inode of the parent directory."""
        if self._is_inline:
            return int.from_bytes(self.inode.i_block[:4], "little")
        _, leaf = next(self._leaves(_DOTDOT), (0, None))
        slot = leaf.find(_DOTDOT) if leaf else None
        if slot is None:
            raise self._fs.not_believed(f"{inode_name(self.inode.number)}: it has no entry for its parent directory")
        return slot.inode

    def insert(self, name: bytes, child: StoredInode) -> None:
        """Add an entry for child; the name must be new."""
        _check_length(name)
        entry = name, child.number, self._file_type(child)
        if not self._inserted(name, child) and not self._grown([entry]):
            self._write([*self.entries(), entry])

    def _inserted(self, name: bytes, child: StoredInode) -> bool:
        """Add an entry if there is room for it; False if there is none."""
        for block, leaf in self._candidates(name):
            if leaf.insert(child.number, name, self._file_type(child)):
                self._transaction.put(block, leaf.sealed(self.inode.seed))
                return True
        return False

    def remove(self, name: bytes) -> None:
        """Remove an existing entry."""
        if self._is_inline:
            self._write([entry for entry in self.entries() if entry[0] != name], order=WriteOrder.LAST)
            return
        for block, leaf in self._leaves_of(name):
            if leaf.remove(name):
                self._transaction.put(block, leaf.sealed(self.inode.seed), order=WriteOrder.LAST)
                return

    def rename(self, name: bytes, new_name: bytes, child: StoredInode) -> None:
        """Rename the existing entry of child, replacing an entry of the new name.

        A single block changes, with the directory's inode or with entries, so the change is atomic even without a
        journal.
        """
        _check_length(new_name)
        file_type = self._file_type(child)
        if not self._is_inline and self.find(new_name) is None:
            wanted = {block for block, _ in self._candidates(new_name)}
            for block, leaf in self._leaves(name):
                if block in wanted and leaf.remove(name) and leaf.insert(child.number, new_name, file_type):
                    self._transaction.put(block, leaf.sealed(self.inode.seed), order=WriteOrder.LAST)
                    return
        kept = [entry for entry in self.entries() if entry[0] not in (name, new_name)]
        self._write([*kept, (new_name, child.number, file_type)], order=WriteOrder.LAST)

    def point(self, name: bytes, child: StoredInode) -> None:
        """Make an existing entry refer to child."""
        file_type = self._file_type(child)
        if self._is_inline:
            pointed = [(one, child.number if one == name else old, kind) for one, old, kind in self.entries()]
            self._write(pointed, order=WriteOrder.NEW_NAMES)
            return
        for block, leaf in self._leaves_of(name):
            if leaf.point(name, child.number, file_type):
                self._transaction.put(block, leaf.sealed(self.inode.seed), order=WriteOrder.NEW_NAMES)
                return

    def change(self, names: Mapping[bytes, StoredInode | None], parent: int | None = None) -> None:
        """Make names, old or new, refer to other files, all at once; None removes an existing name.

        parent is the parent's inode of a new directory, which has no blocks yet.
        """
        if parent is None and not self._is_inline and not any(names.values()):
            self._remove_all(names)
            return
        if parent is None and self.inode.size >= LARGE_DIRECTORY and self._change_large(names):
            return
        # Changing one name takes as long as writing two blocks.
        is_few = len(names) == 1 or len(names) <= min(FEW_NAMES, self._size_in_blocks // 2)
        is_possible = is_few and parent is None and not self._is_inline
        if is_possible and all(self._change_one(name, child) for name, child in names.items()):
            return
        kept = [] if parent is not None else [entry for entry in self.entries() if entry[0] not in names]
        added = [(name, child.number, self._file_type(child)) for name, child in names.items() if child is not None]
        self._write([*kept, *added], parent)

    def _change_large(self, names: Mapping[bytes, StoredInode | None]) -> bool:
        """Change names in the blocks for their hashes; False, with nothing changed, if that is not possible."""
        if not self._grown([(name, child.number, self._file_type(child)) for name, child in names.items() if child]):
            return False
        gone = {name for name, child in names.items() if child is None}
        if len(gone) > FEW_NAMES:
            self._remove_all(gone)
        else:
            for name in gone:
                self.remove(name)
        return True

    def _grown(self, entries: list[NamedInode]) -> bool:
        """Add names to the tree of hashes, or point them to other inodes; False, with nothing changed, if there is no
        tree that can grow, or no journal that makes the change atomic.
        """
        if not self._is_indexed or not self._transaction.has_journal:
            return False
        savepoint = self._transaction.savepoint()
        try:
            growing = GrowingIndex(self._transaction, self.inode, self._opened_index(), self._writer)
            growing.put(entries)
        except DamagedIndexError:
            self._transaction.restore(savepoint)
            return False
        finally:
            self._index = None
        self.inode = growing.finished()
        return True

    def _remove_all(self, names: Collection[bytes]) -> None:
        """Remove entries in their blocks, which needs no free block."""
        left = {*names}
        for block, data in self._blocks():
            if not has_entries(data):  # all blocks that were emptied before
                continue
            leaf = Leaf.intact(self._fs, block, data, self.inode)
            found = leaf.remove_all(left)
            if found:
                self._transaction.put(block, leaf.sealed(self.inode.seed), order=WriteOrder.LAST)
                left -= found
                if not left:
                    return

    def _change_one(self, name: bytes, child: StoredInode | None) -> bool:
        """Change a name in the block that has it or has room for it; False if none does."""
        if child is None:
            self.remove(name)
        elif self.find(name) is not None:
            self.point(name, child)
        else:
            return self._inserted(name, child)
        return True

    def move_below(self, parent: int) -> None:
        """Set another parent directory."""
        if self._is_inline or self._is_indexed:
            self._write(list(self.entries()), parent)
            return
        for block, leaf in self._leaves(_DOTDOT):
            if leaf.point(_DOTDOT, parent, self._file_type(self.inode)):
                self._transaction.put(block, leaf.sealed(self.inode.seed))
                return

    def begin(self, parent: int) -> None:
        """Give a new directory its first block."""
        self._write([], parent)

    @property
    def _is_inline(self) -> bool:
        return bool(self.inode.flags & layout.INLINE_DATA_FLAG)

    @property
    def _size_in_blocks(self) -> int:
        return self.inode.size // self._fs.geometry.block_size

    @property
    def _is_indexed(self) -> bool:
        return bool(self.inode.flags & layout.INDEX_FLAG)

    def _file_type(self, child: StoredInode) -> int:
        has_types = Incompat.FILETYPE in self._fs.geometry.features
        return layout.FILE_TYPES.get(child.kind, 0) if has_types else 0

    def _candidates(self, name: bytes) -> Iterator[tuple[int, Leaf]]:
        """Yield the blocks that a new name may go to, with their entries."""
        if self._is_inline:
            return
        if not self._is_indexed:
            yield from self._leaves()
            return
        with suppress(DamagedIndexError):
            index = self._opened_index()
            block = index.where(next(index.leaves(name)))
            yield block, self._leaf(block)

    def _opened_index(self) -> DirectoryIndex:
        """Return the current tree of hashes. Raises DamagedIndexError if there is none."""
        if self._index is None:
            self._index = opened_index(self._fs, self.inode)
        return self._index

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield (location, contents) of each block, which may be changed afterwards; some are read at once."""
        size = self._fs.geometry.block_size
        for _, start, count in file_pieces(self._fs, self.inode, self._size_in_blocks):
            for first in range(start, start + count, _BLOCKS_AT_ONCE):
                data = self._fs.read(first, min(_BLOCKS_AT_ONCE, start + count - first))
                for at in range(0, len(data), size):
                    yield first + at // size, data[at : at + size]

    def _leaves(self, wanted: bytes = b"") -> Iterator[tuple[int, Leaf]]:
        """Yield blocks with their entries; blocks of hashes look free; only blocks with wanted, if given."""
        for block, data in self._blocks():
            if wanted in data:
                yield block, Leaf.intact(self._fs, block, data, self.inode)

    def _leaves_of(self, name: bytes) -> Iterator[tuple[int, Leaf]]:
        """Yield blocks that may have a name: in a large directory the blocks for its hash come first."""
        if self.inode.size >= LARGE_DIRECTORY:
            with suppress(DamagedIndexError):
                index = self._opened_index()
                for number in index.leaves(name):
                    yield index.where(number), self._leaf(index.where(number))
        yield from self._leaves(name)

    def _leaf(self, block: int) -> Leaf:
        return Leaf.read(self._fs, block, self.inode)

    def _write(
        self, entries: list[NamedInode], parent: int | None = None, order: WriteOrder = WriteOrder.OTHERS
    ) -> None:
        """Write all entries to new blocks, which take effect with the inode."""
        self.inode_order = max(self.inode_order, order)
        parent = self.parent() if parent is None else parent
        stored = [(number, name, file_type) for name, number, file_type in entries]
        new = self._writer.directory(self.inode.number, parent, stored, self.inode.seed)
        data = b"".join(new.blocks)
        inode = outlined(self._transaction, self.inode)
        flags = inode.flags & ~layout.INDEX_FLAG | (layout.INDEX_FLAG if new.is_indexed else 0)
        contents = Contents(self._transaction, changed(inode, {"i_flags": flags}))
        contents.cut(0)
        contents.add_metadata(data)
        self.inode = contents.finished(len(data))
        self._index = None


def _check_length(name: bytes) -> None:
    if not 0 < len(name) <= layout.NAME_MAX:
        text = f"would have a name of {len(name)} bytes (1 to {layout.NAME_MAX} are possible)"
        raise RefusedError(text, errno.ENAMETOOLONG)
