# SPDX-License-Identifier: MIT
"""A directory's blocks from its entries (directory.rst): one after the other, or ordered by hashes in a tree.

    | dx_root: ".", "..", table | dx_node ... | leaf | leaf | ...

The tree has one or two levels of tables; where that is not enough, the blocks have none, which is slow and correct.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.directory_hash import DirectoryHash

DirectoryEntry = tuple[int, bytes, int]
"""Inode, name and file_type (layout.FILE_TYPES)."""

_LONGEST = 0xFFFF  # rec_len of an entry of 64 KiB
_LEAF_FILL = 4, 5  # the part of a leaf that is filled, so that a name can be added without splitting it


@dataclass(frozen=True, slots=True)
class NewDirectory:
    """The blocks of a directory, in order, and whether the first one is the root of a tree of hashes."""

    blocks: list[bytearray]
    is_indexed: bool


class DirectoryWriter:
    """Makes directories of one file system; hashing is None where it has no trees of hashes, file_type what an entry
    says of a directory (0 without the feature filetype).
    """

    def __init__(
        self,
        block_size: int,
        checksums: Checksums,
        hashing: DirectoryHash | None = None,
        *,
        file_type: int = layout.FILE_TYPE_DIRECTORY,
    ) -> None:
        self._block_size = block_size
        self._checksums = checksums
        self._hashing = hashing
        self._file_type = file_type
        self._space = block_size - (layout.DIRECTORY_TAIL.size if checksums.active else 0)

    def directory(
        self, number: int, parent: int, entries: Sequence[DirectoryEntry], seed: int | None = None
    ) -> NewDirectory:
        """Return the directory with this inode; entries are those besides "." and "..", all of different names.

        seed is the inode's, for the checksums; None: that of the first file that has the inode.
        """
        seed = self._checksums.for_inode(number) if seed is None else seed
        blocks = self._leaves([*self._own_entries(number, parent), *entries], self._space)
        if len(blocks) > 1 and self._hashing:
            indexed = self._indexed((number, parent), entries, self._hashing, seed)
            if indexed is not None:
                return NewDirectory(indexed, is_indexed=True)
        return NewDirectory(self._sealed(seed, blocks), is_indexed=False)

    def linear(self, number: int, parent: int, entries: Sequence[DirectoryEntry], least: int) -> list[bytearray]:
        """Return the directory without a tree, of at least so many blocks."""
        blocks = self._leaves([*self._own_entries(number, parent), *entries], self._space)
        blocks += [self._leaf([]) for _ in range(least - len(blocks))]
        return self._sealed(self._checksums.for_inode(number), blocks)

    def _sealed(self, seed: int, blocks: list[bytearray]) -> list[bytearray]:
        """Fill in the checksums of leaves and return them."""
        for block in blocks:
            self._checksums.directory_block(seed, block)
        return blocks

    def _leaves(self, entries: Sequence[DirectoryEntry], space: int) -> list[bytearray]:
        """Return leaf blocks, in which entries take at most space bytes, without checksums."""
        return [self._leaf(part) for part in _parts(entries, space)]

    def _leaf(self, entries: Sequence[DirectoryEntry]) -> bytearray:
        """Return one block; its last entry reaches to the end, and without entries an unused one does."""
        block = bytearray(self._block_size)
        at = 0
        last = len(entries) - 1
        for index, (inode, name, file_type) in enumerate(entries or [(0, b"", 0)]):
            length = self._space - at if index == max(last, 0) else entry_length(name)
            layout.DIRECTORY_ENTRY.put(
                block,
                {"inode": inode, "rec_len": min(length, _LONGEST), "name_len": len(name), "file_type": file_type},
                at,
            )
            start = at + layout.DIRECTORY_ENTRY.size
            block[start : start + len(name)] = name
            at += length
        if self._checksums.active:
            tail = {"det_rec_len": layout.DIRECTORY_TAIL.size, "det_reserved_ft": layout.DIRECTORY_TAIL_TYPE}
            layout.DIRECTORY_TAIL.put(block, tail, self._space)
        return block

    def _indexed(
        self, own: tuple[int, int], entries: Sequence[DirectoryEntry], hashing: DirectoryHash, seed: int
    ) -> list[bytearray] | None:
        """Return the blocks of a tree; None where two levels of tables are not enough."""
        hashed = sorted([(hashing(entry[1]), entry) for entry in entries], key=lambda pair: (pair[0], pair[1][1]))
        filled = self._space * _LEAF_FILL[0] // _LEAF_FILL[1]
        parts = _parts([entry for _, entry in hashed], filled)
        hashes = _first_hashes([value for value, _ in hashed], [len(part) for part in parts])
        root_limit, node_limit = self._limit(layout.DX_ROOT.size), self._limit(layout.DX_NODE.size)
        nodes = -(-len(parts) // node_limit) if len(parts) > root_limit else 0
        if nodes > root_limit:
            return None
        each = -(-len(parts) // nodes) if nodes else 0
        nodes = -(-len(parts) // each) if nodes else 0
        table = [(value, 1 + nodes + index) for index, value in enumerate(hashes)]
        tables = []
        if nodes:
            tables = [table[at : at + each] for at in range(0, len(table), each)]
            table = [(part[0][0], 1 + index) for index, part in enumerate(tables)]
        blocks = [self._table(seed, self._root(*own, 1 if nodes else 0, hashing.version), table)]
        blocks += [self._table(seed, self._node(), part) for part in tables]
        return blocks + self._sealed(seed, [self._leaf(part) for part in parts])

    def _own_entries(self, number: int, parent: int) -> list[DirectoryEntry]:
        return [(number, b".", self._file_type), (parent, b"..", self._file_type)]

    def _limit(self, before: int) -> int:
        """Return how many entries a table has room for, in a block with before bytes in front of it."""
        tail = layout.DX_TAIL.size if self._checksums.active else 0
        return (self._block_size - before - tail) // layout.DX_ENTRY.size

    def _root(self, number: int, parent: int, levels: int, version: int) -> bytes:
        """Return what the first block begins with, before its table."""
        own = layout.DIRECTORY_ENTRY.size + 4
        dot, dotdot = (
            layout.DIRECTORY_ENTRY.pack(inode=inode, rec_len=length, name_len=len(name), file_type=self._file_type)
            for inode, length, name in ((number, own, b"."), (parent, self._block_size - own, b".."))
        )
        return layout.DX_ROOT.pack(
            dot=dot,
            dot_name=b".",
            dotdot=dotdot,
            dotdot_name=b"..",
            hash_version=version,
            info_length=layout.DX_ROOT_INFO_LENGTH,
            indirect_levels=levels,
        )

    def _node(self) -> bytes:
        return layout.DX_NODE.pack(rec_len=min(self._block_size, _LONGEST))

    def _table(self, seed: int, front: bytes, table: Sequence[tuple[int, int]]) -> bytearray:
        limit, first = self._limit(len(front)), table[0][1]
        data = front + layout.DX_COUNT_LIMIT.pack(limit=limit, count=len(table), block=first)
        data += b"".join([layout.DX_ENTRY.pack(hash=value, block=block) for value, block in table[1:]])
        block = bytearray(data.ljust(self._block_size, b"\0"))
        self._checksums.index_block(seed, block, len(front))
        return block


def entry_length(name: bytes) -> int:
    """Return the bytes that an entry needs."""
    return layout.DIRECTORY_ENTRY.size + -(-len(name) // 4) * 4


def _parts(entries: Sequence[DirectoryEntry], space: int) -> list[list[DirectoryEntry]]:
    """Divide entries into runs of at most space bytes each, none of them empty."""
    parts: list[list[DirectoryEntry]] = []
    left = 0
    for entry in entries:
        length = entry_length(entry[1])
        if length > left:
            parts.append([])
            left = space
        parts[-1].append(entry)
        left -= length
    return parts


def _first_hashes(hashes: Sequence[int], counts: Sequence[int]) -> list[int]:
    """Return the hash from which each leaf on holds names; the lowest bit says that those of the one before go on."""
    found, at = [], 0
    for count in counts:
        goes_on = at > 0 and hashes[at - 1] == hashes[at]
        found.append(hashes[at] | goes_on)
        at += count
    return found
