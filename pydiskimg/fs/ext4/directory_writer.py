# SPDX-License-Identifier: MIT
"""A directory's blocks from its entries (directory.rst): one after the other, or ordered by hashes in a tree.

    | dx_root: ".", "..", table | dx_node ... | leaf | leaf | ...

The tree has one or two levels of tables; if that is not enough, the directory has no tree, which is correct but slow.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import accumulate, chain, islice

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.directory_hash import DirectoryHash, table_limit
from pydiskimg.startup import Protocol

DirectoryEntry = tuple[int, bytes, int]
"""Inode, name and file_type (layout.FILE_TYPES)."""


class Entries(Protocol):
    """The entries of a directory: a list, or an iterable that makes each entry on demand, so that they need not be in
    memory.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> DirectoryEntry: ...


_ENTRY = struct.Struct("<IHBB")
assert _ENTRY.size == layout.DIRECTORY_ENTRY.size
_LONGEST = 0xFFFF  # rec_len of an entry of 64 KiB
_LEAF_FILL = 4, 5  # the share of a leaf that is filled, so that a name can be added without splitting it
_IN_MEMORY = 1 << 10  # up to here, entries are kept instead of being made anew in each pass
_SORTED_AT_ONCE = 1 << 15
_INDEX = 0xFFFFFFFF  # bits of an entry's index, in the lower half of its sort key


@dataclass(frozen=True, slots=True)
class NewDirectory:
    """The blocks of a directory, count of them in order, made on demand, and whether the first one is the root of a
    tree of hashes.
    """

    blocks: Iterator[bytearray]
    count: int
    is_indexed: bool


class DirectoryWriter:
    """Makes directories of one file system; hashing is None if it has no trees of hashes, file_type is an entry's value
    for a directory (0 without the feature filetype).
    """

    def __init__(
        self,
        block_size: int,
        checksums: Checksums,
        hashing: DirectoryHash | None = None,
        *,
        file_type: int = layout.FILE_TYPE_DIRECTORY,
        most_levels: int = 1,
    ) -> None:
        """most_levels is the largest number of tables below the root's on the way to a block of entries."""
        self._most_levels = most_levels
        self._block_size = block_size
        self._checksums = checksums
        self._hashing = hashing
        self._file_type = file_type
        self._space = block_size - (layout.DIRECTORY_TAIL.size if checksums.active else 0)

    def directory(self, number: int, parent: int, entries: Entries, seed: int | None = None) -> NewDirectory:
        """Return the directory with this inode; entries are those besides "." and "..", all of different names.

        The entries are iterated several times, and each takes twelve to twenty bytes of memory. seed is the inode's,
        for the checksums; None means the seed of an inode's first generation.
        """
        seed = self._checksums.for_inode(number) if seed is None else seed
        if len(entries) <= _IN_MEMORY:
            entries = [*_each(entries)]
        own = self._own_entries(number, parent)
        counts = _counts(chain(own, _each(entries)), self._space)
        if len(counts) > 1 and self._hashing:
            indexed = self._indexed((number, parent), entries, self._hashing, seed)
            if indexed is not None:
                return indexed
        return NewDirectory(self._leaves(chain(own, _each(entries)), counts, seed), len(counts), is_indexed=False)

    def linear(self, number: int, parent: int, entries: Entries, least: int) -> NewDirectory:
        """Return the directory without a tree, with at least that many blocks."""
        seed, own = self._checksums.for_inode(number), self._own_entries(number, parent)
        counts = _counts(chain(own, _each(entries)), self._space)
        counts.extend([0] * (least - len(counts)))
        return NewDirectory(self._leaves(chain(own, _each(entries)), counts, seed), len(counts), is_indexed=False)

    def leaf(self, entries: Sequence[DirectoryEntry], seed: int) -> bytearray:
        """Return one block with entries, which must fit; the last entry reaches to its end, or an unused one if there
        are no entries. seed is the directory's.
        """
        block = bytearray(self._block_size)
        at = 0
        last = len(entries) - 1
        for index, (inode, name, file_type) in enumerate(entries or [(0, b"", 0)]):
            length = self._space - at if index >= last else entry_length(name)
            _ENTRY.pack_into(block, at, inode, min(length, _LONGEST), len(name), file_type)
            start = at + _ENTRY.size
            block[start : start + len(name)] = name
            at += length
        if self._checksums.active:
            tail = {"det_rec_len": layout.DIRECTORY_TAIL.size, "det_reserved_ft": layout.DIRECTORY_TAIL_TYPE}
            layout.DIRECTORY_TAIL.put(block, tail, self._space)
        self._checksums.directory_block(seed, block)
        return block

    def _leaves(self, entries: Iterator[DirectoryEntry], counts: Iterable[int], seed: int) -> Iterator[bytearray]:
        """Yield blocks with the given numbers of entries."""
        return (self.leaf([*islice(entries, count)], seed) for count in counts)

    def _indexed(
        self, own: tuple[int, int], entries: Entries, hashing: DirectoryHash, seed: int
    ) -> NewDirectory | None:
        """Return the directory with a tree; None if there are not enough levels of tables."""
        order = _by_hashes(entries, hashing)
        filled = self._space * _LEAF_FILL[0] // _LEAF_FILL[1]
        counts = _counts((entries[key & _INDEX] for key in order), filled)
        sizes = self._sizes(len(counts))
        if sizes is None:
            return None
        starts = [*accumulate(sizes, initial=1)]  # the blocks of each level are neighbours, the leaves last
        table = [(value, starts[-2] + index) for index, value in enumerate(_first_hashes(order, counts))]
        tables: list[list[tuple[int, int]]] = []
        for size, start in zip(sizes[-2::-1], starts[-3::-1], strict=True):
            each = -(-len(table) // size)
            parts = [table[at : at + each] for at in range(0, len(table), each)]
            table = [(part[0][0], start + index) for index, part in enumerate(parts)]
            tables[:0] = parts
        root = self.table(seed, self._root(*own, len(sizes) - 1, hashing.version), table)
        leaves = self._leaves((entries[key & _INDEX] for key in order), counts, seed)
        blocks = chain([root], (self.node(seed, part) for part in tables), leaves)
        return NewDirectory(blocks, starts[-1], is_indexed=True)

    def _sizes(self, leaves: int) -> list[int] | None:
        """Return the number of blocks of each level below the root, the leaves last; None for too many levels."""
        root_limit, node_limit = self.limit(layout.DX_ROOT.size), self.limit(layout.DX_NODE.size)
        sizes = [leaves]
        while sizes[0] > root_limit:
            if len(sizes) > self._most_levels:
                return None
            each = -(-sizes[0] // -(-sizes[0] // node_limit))  # the same number in each table
            sizes.insert(0, -(-sizes[0] // each))
        return sizes

    def _own_entries(self, number: int, parent: int) -> list[DirectoryEntry]:
        return [(number, b".", self._file_type), (parent, b"..", self._file_type)]

    def limit(self, before: int) -> int:
        """Return how many entries fit in a table, in a block with before bytes in front of it."""
        return table_limit(self._block_size, before, has_checksums=self._checksums.active)

    def _root(self, number: int, parent: int, levels: int, version: int) -> bytes:
        """Return the beginning of the first block, in front of its table."""
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

    def node(self, seed: int, table: Sequence[tuple[int, int]]) -> bytearray:
        """Return a block of hashes below the root, with the entries (hash, block) of its table."""
        return self.table(seed, layout.DX_NODE.pack(rec_len=min(self._block_size, _LONGEST)), table)

    def table(self, seed: int, front: bytes, table: Sequence[tuple[int, int]]) -> bytearray:
        """Return a block of hashes that begins with front."""
        limit, first = self.limit(len(front)), table[0][1]
        data = front + layout.DX_COUNT_LIMIT.pack(limit=limit, count=len(table), block=first)
        data += b"".join([layout.DX_ENTRY.pack(hash=value, block=block) for value, block in table[1:]])
        block = bytearray(data.ljust(self._block_size, b"\0"))
        self._checksums.index_block(seed, block, len(front))
        return block


def entry_length(name: bytes) -> int:
    """Return the bytes that an entry takes."""
    return layout.DIRECTORY_ENTRY.size + -(-len(name) // 4) * 4


def _by_hashes(entries: Entries, hashing: DirectoryHash) -> array[int]:
    """Return hash << 32 | index of all entries, sorted; parts are sorted and merged, because a list would take ten
    times as much memory.
    """
    hashes = hashing.of_each(entry[1] for entry in _each(entries))
    keys = (value << 32 | index for index, value in enumerate(hashes))
    parts = []
    while part := sorted(islice(keys, _SORTED_AT_ONCE)):
        parts.append(array("Q", part))
    return parts[0] if len(parts) == 1 else array("Q", merge(*parts))


def _each(entries: Entries) -> Iterator[DirectoryEntry]:
    return (entries[index] for index in range(len(entries)))


def _counts(entries: Iterable[DirectoryEntry], space: int) -> array[int]:
    """Divide entries into non-empty runs of at most space bytes each, and return the number of entries of each."""
    counts = array("I")
    left = 0
    for _, name, _ in entries:
        length = entry_length(name)
        if length > left:
            counts.append(0)
            left = space
        counts[-1] += 1
        left -= length
    return counts


def _first_hashes(order: array[int], counts: array[int]) -> Iterator[int]:
    """Yield the first hash of each leaf; the lowest bit says that it continues the previous leaf's last hash."""
    at = 0
    for count in counts:
        goes_on = at > 0 and order[at - 1] >> 32 == order[at] >> 32
        yield order[at] >> 32 | goes_on
        at += count
