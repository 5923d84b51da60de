# SPDX-License-Identifier: MIT
"""Read a quota file: the usage and limits of each user, group or project (Linux, fs/quota/quota_tree.c).

block 0: header | block 1: 256 numbers of blocks, by the highest 8 bits of the id | ... three levels | entries
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pydiskimg.fs.ext4 import quota_layout
from pydiskimg.fs.ext4.contents import FileSource
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name, read_inode
from pydiskimg.protocols import read_bytes

ENTRIES_PER_BLOCK = (quota_layout.BLOCK_SIZE - quota_layout.LEAF.size) // quota_layout.ENTRY.size
_UNUSED = bytes(quota_layout.ENTRY.size)
MAX_BLOCKS = 1 << 22  # of a quota file: 4 GiB, for some 50 million ids


class QuotaFile:
    """The quota file of one kind (0 users, 1 groups, 2 projects) in an inode of fs, which does not change."""

    def __init__(self, fs: FileSystem, number: int, kind: int) -> None:
        """Raises NotBelievedError if it is not a quota file of this kind, and as reading does."""
        self.inode: StoredInode = read_inode(fs, number)
        self._fs = fs
        self._source = FileSource(fs, self.inode, name=f"{fs.name}, quota file {number}")
        size = quota_layout.BLOCK_SIZE
        self.blocks = self._source.size // size
        if self.blocks < quota_layout.ROOT + 1 or self.blocks > MAX_BLOCKS or self._source.size % size:
            raise self.damaged(f"it is a quota file of {self._source.size} bytes")
        head = self.block(0)
        fields = quota_layout.HEADER.unpack(head)
        expected = (quota_layout.MAGICS[kind], quota_layout.VERSION)
        if (fields["dqh_magic"], fields["dqh_version"]) != expected:
            raise self.damaged("it is not a quota file of its kind (vfsv1)")
        self.info: dict[str, int] = quota_layout.INFO.unpack(head, quota_layout.HEADER.size)

    def block(self, number: int) -> bytes:
        """Return a block. Raises NotBelievedError for a block that the file does not have."""
        if number >= self.blocks:
            raise self.damaged(f"its quota file has {self.blocks} blocks, and names block {number}")
        return read_bytes(self._source, number * quota_layout.BLOCK_SIZE, quota_layout.BLOCK_SIZE)

    def entries(self) -> Iterator[tuple[int, dict[str, int]]]:
        """Yield (offset in the file, entry) in the order of the tree. Raises NotBelievedError for a circular tree."""
        seen = {0, quota_layout.ROOT}
        yield from self._below(quota_layout.ROOT, quota_layout.LEVELS, seen)

    def damaged(self, what: str) -> NotBelievedError:
        return self._fs.not_believed(f"{inode_name(self.inode.number)}: {what}")

    def _below(self, block: int, levels: int, seen: set[int]) -> Iterator[tuple[int, dict[str, int]]]:
        for number in sorted({*references(self.block(block))} - {0}):
            if number in seen and (levels > 1 or number <= quota_layout.ROOT):
                raise self.damaged(f"the tree of its quota file returns to block {number}")
            if number in seen:
                continue  # ids of several nodes may share one block of entries
            seen.add(number)
            if levels > 1:
                yield from self._below(number, levels - 1, seen)
                continue
            data = self.block(number)
            for index in range(ENTRIES_PER_BLOCK):
                at = quota_layout.LEAF.size + index * quota_layout.ENTRY.size
                if data[at : at + quota_layout.ENTRY.size] != _UNUSED:
                    yield number * quota_layout.BLOCK_SIZE + at, quota_layout.ENTRY.unpack(data, at)


def references(block: bytes) -> tuple[int, ...]:
    """Return the numbers of blocks in a node of the tree."""
    return struct.unpack(f"<{len(block) // 4}I", block)
