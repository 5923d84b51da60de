# SPDX-License-Identifier: MIT
"""A directory whose entries are changed: in the block that holds them, or all of it anew where there is no room."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.contents import Contents
from pydiskimg.fs.ext4.change.errors import UnfitFileError
from pydiskimg.fs.ext4.change.inodes import changed
from pydiskimg.fs.ext4.change.leaf import Leaf, Slot, empty_leaf
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.features import Incompat
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name
from pydiskimg.fs.ext4.map_reader import file_pieces

_DOTS = (b".", b"..")


class ChangedDirectory:
    """The directory of an inode. inode is the one to be stored when its entries were changed."""

    def __init__(self, transaction: Transaction, inode: StoredInode) -> None:
        """Raises UnfitFileError for a file that is not a directory, or one whose entries are not changed here."""
        if inode.kind != layout.DIRECTORY:
            raise UnfitFileError("is not a directory", errno.ENOTDIR)
        if inode.flags & (layout.ENCRYPT_FLAG | layout.CASEFOLD_FLAG):
            raise UnfitFileError("is a directory with encrypted or casefolded names", errno.EOPNOTSUPP)
        self._transaction = transaction
        self._fs = transaction.fs
        self.inode = inode

    def slots(self) -> Iterator[Slot]:
        """Yield all entries that are in use, with "." and "..". Raises NotBelievedError where one makes no sense."""
        for _, leaf in self._leaves():
            yield from (slot for slot in leaf.slots() if slot.inode)

    def find(self, name: bytes) -> Slot | None:
        return next((slot for slot in self.slots() if slot.name == name), None)

    def is_empty(self) -> bool:
        return all(slot.name in _DOTS for slot in self.slots())

    def insert(self, name: bytes, child: StoredInode) -> None:
        """Add an entry for child; nothing has this name."""
        if not 0 < len(name) <= layout.NAME_MAX:
            raise UnfitFileError(
                f"would have a name of {len(name)} bytes (at most {layout.NAME_MAX})", errno.ENAMETOOLONG
            )
        file_type = self._file_type(child)
        if not self._is_indexed:
            for block, leaf in self._leaves():
                if leaf.insert(child.number, name, file_type):
                    self._transaction.put(block, leaf.sealed(self.inode.seed))
                    return
        self._rebuild((name, child.number, file_type))

    def remove(self, name: bytes) -> None:
        """Take an entry away, which is there."""
        for block, leaf in self._leaves():
            if leaf.remove(name):
                self._transaction.put(block, leaf.sealed(self.inode.seed), is_last=True)
                return

    def point(self, name: bytes, child: StoredInode) -> None:
        """Make an entry, which is there, one of child."""
        if name == b".." and self._is_indexed:  # it lies in a block of hashes
            entries = [(slot.name, slot.inode, slot.file_type) for slot in self.slots() if slot.name != name]
            entries.insert(1, (name, child.number, self._file_type(child)))
            self._write(entries)
            return
        for block, leaf in self._leaves():
            if leaf.point(name, child.number, self._file_type(child)):
                self._transaction.put(block, leaf.sealed(self.inode.seed))
                return

    def begin(self, parent: int) -> None:
        """Give a new directory its first block."""
        file_type = self._file_type(self.inode)
        self._write([(b".", self.inode.number, file_type), (b"..", parent, file_type)])

    @property
    def _is_indexed(self) -> bool:
        return bool(self.inode.flags & layout.INDEX_FLAG)

    def _file_type(self, child: StoredInode) -> int:
        has_types = Incompat.FILETYPE in self._fs.geometry.features
        return layout.FILE_TYPES.get(child.kind, 0) if has_types else 0

    def _leaves(self) -> Iterator[tuple[int, Leaf]]:
        """Yield each block of the directory with its entries; what has no entries looks like a free one."""
        size, where = self._fs.geometry.block_size, inode_name(self.inode.number)
        for _, at, count in file_pieces(self._fs, self.inode, self.inode.size // size):
            for block in range(at, at + count):
                data = self._transaction.read(block)
                leaf = Leaf(self._fs, data, where)
                if leaf.has_tail and not self._fs.checksums.directory_block_holds(self.inode.seed, data):
                    raise self._fs.not_believed(f"{where}: the checksum of its block {block} does not hold")
                yield block, leaf

    def _rebuild(self, *more: tuple[bytes, int, int]) -> None:
        """Write all entries, and more, into new blocks."""
        entries = [(slot.name, slot.inode, slot.file_type) for slot in self.slots()]
        self._write([*entries, *more])

    def _write(self, entries: list[tuple[bytes, int, int]]) -> None:
        leaves = [Leaf(self._fs, empty_leaf(self._fs), "")]
        for name, number, file_type in entries:
            if not leaves[-1].insert(number, name, file_type):
                leaves.append(Leaf(self._fs, empty_leaf(self._fs), ""))
                leaves[-1].insert(number, name, file_type)
        data = b"".join(leaf.sealed(self.inode.seed) for leaf in leaves)
        inode = changed(self.inode, {"i_flags": self.inode.flags & ~layout.INDEX_FLAG})
        contents = Contents(self._transaction, inode)
        contents.cut(0)
        contents.add_metadata(data)
        self.inode = contents.finished(len(data))
