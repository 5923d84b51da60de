# SPDX-License-Identifier: MIT
"""A directory's tree of hashes: every block is named once, at the right depth, and its names have the right hashes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.check.checking import Checking
from pydiskimg.fs.ext4.check.report import FindingKind
from pydiskimg.fs.ext4.directory_hash import COMPUTED_HASHES, table_limit
from pydiskimg.fs.ext4.directory_index import directory_hash, most_levels
from pydiskimg.fs.ext4.inodes import StoredInode

_INFO = layout.DX_ROOT.offsets["reserved_zero"]
_BLOCK_BITS = 0x0FFFFFFF
_HIGHEST = 0xFFFFFFFE
_KNOWN_HASHES = (layout.HASH_LEGACY, layout.HASH_HALF_MD4, layout.HASH_TEA, layout.HASH_SIPHASH)
_INCOMPATIBLE = 0x1  # of unused_flags
_MOST_BLOCKS = 1 << 20  # of a directory; 200 bytes of memory each


@dataclass(slots=True)
class _Named:
    """The entry of a table for a block: the table, the range of its hashes, how often it is named."""

    depth: int
    lowest: int
    highest: int
    is_first: bool
    times: int = 1


class HashTree:
    """The tree of one directory, whose blocks are added in order."""

    def __init__(self, checking: Checking, inode: StoredInode) -> None:
        self._checking = checking
        self._inode = inode
        self._tables: dict[int, list[tuple[int, int]]] = {}
        self._leaves: dict[int, tuple[int, int]] = {}
        self._levels = 0
        self._is_usable = True
        self._hash = directory_hash(checking.fs)
        self._is_hashed = not inode.flags & (layout.CASEFOLD_FLAG | layout.ENCRYPT_FLAG)

    def table_of(self, index: int, block: bytes) -> int | None:
        """Return the byte at which a block's table begins; None for a block of entries."""
        if index == 0:
            return _INFO + int(layout.DX_ROOT.unpack(block)["info_length"])
        node = layout.DX_NODE.unpack(block)
        is_unused = not node["inode"] and not node["name_len"] and node["rec_len"] in (len(block) & 0xFFFF, 0xFFFF)
        limit = layout.DX_COUNT_LIMIT.unpack(block, layout.DX_NODE.size)["limit"]
        return layout.DX_NODE.size if is_unused and limit == self._limit(layout.DX_NODE.size) else None

    def add(self, index: int, block: bytes, table: int | None, names: list[bytes]) -> None:
        """Add a block: its table, or the names in it."""
        if len(self._tables) + len(self._leaves) >= _MOST_BLOCKS:
            self._is_usable = False
        if not self._is_usable:
            return
        if table is None:
            hashes = [*self._hash.of_each(names)] if self._is_hashed else []
            self._leaves[index] = (min(hashes, default=_HIGHEST), max(hashes, default=0))
            return
        if index == 0:
            self._check_root(block)
        if not self._is_usable:
            return
        head = layout.DX_COUNT_LIMIT.unpack(block, table)
        if head["limit"] != self._limit(table) or head["count"] > head["limit"]:
            self._found(f"a table of hashes has room for {head['limit']} entries and {head['count']} in use")
            self._is_usable = False
            return
        entries = [
            layout.DX_ENTRY.unpack(block, table + number * layout.DX_ENTRY.size) for number in range(head["count"])
        ]
        self._tables[index] = [
            (int(entry["hash"]) & ~1 if number else 0, int(entry["block"]) & _BLOCK_BITS)
            for number, entry in enumerate(entries)
        ]

    def finish(self) -> None:
        """Check the tree after all blocks were added."""
        if not self._is_usable or 0 not in self._tables:
            return
        named = {0: _Named(0, 0, _HIGHEST, is_first=True)}
        self._name(0, named)
        for index in (*self._tables, *self._leaves):
            found = named.get(index)
            if found is None:
                self._found(f"block {index} is not in the tree of hashes")
            elif found.times > 1:
                self._found(f"block {index} is in the tree of hashes more than once")
            elif index in self._leaves:
                self._check_leaf(index, found)

    def _name(self, top: int, named: dict[int, _Named]) -> None:
        """Follow the tables below the root; each is followed once."""
        waiting = [top]
        while waiting:
            index = waiting.pop()
            table, above = self._tables[index], named[index]
            if any(one[0] > other[0] for one, other in pairwise(table)):
                self._found(f"the hashes of block {index} are not in order")
            for number, (lowest, block) in enumerate(table):
                is_last = number + 1 == len(table)
                if block not in self._tables and block not in self._leaves:
                    self._found(f"a table of hashes names block {block}, which the directory does not have")
                    continue
                if block in named:
                    named[block].times += 1
                    continue
                named[block] = _Named(
                    above.depth + 1,
                    lowest or above.lowest,
                    above.highest if is_last else table[number + 1][0],
                    above.is_first and not number,
                )
                if block in self._tables:
                    waiting.append(block)

    def _check_leaf(self, index: int, found: _Named) -> None:
        lowest, highest = self._leaves[index]
        if found.depth != self._levels + 1:
            self._found(f"block {index} is at depth {found.depth} of the tree of hashes, expected {self._levels + 1}")
        if self._is_hashed and highest and (lowest < found.lowest or highest > found.highest):
            self._found(f"block {index} has names of other hashes than {found.lowest:#x} to {found.highest:#x}")

    def _check_root(self, block: bytes) -> None:
        root, checking = layout.DX_ROOT.unpack(block), self._checking
        self._levels, version = int(root["indirect_levels"]), root["hash_version"]
        if (
            root["reserved_zero"]
            or root["info_length"] != layout.DX_ROOT_INFO_LENGTH
            or self._levels > most_levels(checking.fs)
        ):
            self._found("the root of its tree of hashes is invalid")
            self._is_usable = False
        elif version not in _KNOWN_HASHES or root["unused_flags"] & _INCOMPATIBLE:
            self._found(f"its tree of hashes has the unknown version {version}")
            self._is_usable = False
        if version in COMPUTED_HASHES:
            self._hash = directory_hash(checking.fs, version)
        else:
            self._is_hashed = False

    def _limit(self, table: int) -> int:
        fs = self._checking.fs
        return table_limit(fs.geometry.block_size, table, has_checksums=fs.checksums.active)

    def _found(self, text: str) -> None:
        self._checking.found(FindingKind.HASHES, self._inode, text)
