# SPDX-License-Identifier: MIT
"""A reader for many inodes of a file system, in the order of directories or tables: neighbours are read together."""

from __future__ import annotations

from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.inodes import StoredInode, group_of_inode, inode_table, intact_inode
from pydiskimg.protocols import read_bytes

_BYTES_AT_ONCE = 32 << 10
_KEPT = 64  # pieces of tables
_KEPT_INODES = 256  # 6 KiB of memory each
_KEPT_GROUPS = 1 << 12


class InodeTable:
    """The inodes of a file system that does not change; recently read ones are cached, and their neighbours."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._at_once = max(1, _BYTES_AT_ONCE // fs.geometry.inode_size)
        self._tables: dict[int, int] = {}
        self._inodes: dict[int, StoredInode] = {}
        self._pieces: dict[tuple[int, int], bytes] = {}  # in the order of their last use

    def inode(self, number: int) -> StoredInode:
        """Return an inode. Raises as read_inode() does."""
        found = self._inodes.get(number)
        if found is None:
            if len(self._inodes) >= _KEPT_INODES:
                self._inodes.clear()
            found = self._inodes[number] = self._read(number)
        return found

    def _read(self, number: int) -> StoredInode:
        fs, size = self._fs, self._fs.geometry.inode_size
        group, index = group_of_inode(fs, number)
        piece, within = divmod(index, self._at_once)
        data = self._piece(group, piece)
        raw = data[within * size : (within + 1) * size]
        block, offset = divmod(index * size, fs.geometry.block_size)
        where = self._table(group) + block, offset
        return intact_inode(fs, number, where, raw)

    def _piece(self, group: int, piece: int) -> bytes:
        found = self._pieces.pop((group, piece), None)
        if found is not None:
            self._pieces[group, piece] = found
            return found
        geometry = self._fs.geometry
        first = piece * self._at_once
        count = min(self._at_once, geometry.inodes_per_group - first)
        start = self._table(group) * geometry.block_size + first * geometry.inode_size
        data = read_bytes(self._fs.source, start, count * geometry.inode_size)
        self._pieces[group, piece] = data
        if len(self._pieces) > _KEPT:
            del self._pieces[next(iter(self._pieces))]
        return data

    def _table(self, group: int) -> int:
        found = self._tables.get(group)
        if found is None:
            if len(self._tables) >= _KEPT_GROUPS:
                self._tables.clear()
            found = self._tables[group] = inode_table(self._fs, group)
        return found
