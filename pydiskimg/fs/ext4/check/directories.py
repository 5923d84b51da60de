# SPDX-License-Identifier: MIT
"""Every directory by itself: its blocks, "." and "..", and the inodes that its entries name."""

from __future__ import annotations

from collections.abc import Iterator

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.check.checking import Checking
from pydiskimg.fs.ext4.check.entries import SMALLEST, BrokenBlockError, StoredEntry, stored_entries
from pydiskimg.fs.ext4.check.found_inodes import DIRECTORY, FILE_TYPES, FREE, IN_USE, UNKNOWN
from pydiskimg.fs.ext4.check.hashes import HashTree
from pydiskimg.fs.ext4.check.report import FindingKind
from pydiskimg.fs.ext4.check.special_files import HURD
from pydiskimg.fs.ext4.checksums import is_directory_tail
from pydiskimg.fs.ext4.features import Incompat
from pydiskimg.fs.ext4.file_system import NotBelievedError
from pydiskimg.fs.ext4.inodes import StoredInode, group_of_inode, inode_table, stored_inode
from pydiskimg.fs.ext4.map_reader import file_pieces
from pydiskimg.fs.ext4.xattrs import Xattrs
from pydiskimg.protocols import read_bytes
from pydiskimg.text import quoted

_OWN = (b".", b"..")
_INLINE_PARENT = 4
_HASH_SIZE = layout.DIRECTORY_HASH.size


class DirectoryChecker:
    """Checks directories one after the other, when all inodes are known."""

    def __init__(self, checking: Checking) -> None:
        self._checking = checking
        self._fs = checking.fs
        self._inodes = checking.inodes
        self._has_types = checking.has(Incompat.FILETYPE)
        self._most = checking.fs.geometry.inodes

    def check(self, number: int) -> None:
        """Check the directory of an inode that is in use."""
        inode = self._inode(number)
        if inode.flags & layout.INLINE_DATA_FLAG:
            self._check_inline(inode)
            return
        tree = HashTree(self._checking, inode) if inode.flags & layout.INDEX_FLAG else None
        try:
            for index, block in self._blocks(inode):
                self._check_block(inode, index, block, tree)
        except NotBelievedError:
            return  # reported by the check of its map
        if tree is not None:
            tree.finish()

    def _inode(self, number: int) -> StoredInode:
        """Return an inode, also with a wrong checksum, which was reported."""
        group, index = group_of_inode(self._fs, number)
        size = self._fs.geometry.inode_size
        block, offset = divmod(index * size, self._fs.geometry.block_size)
        block += inode_table(self._fs, group)
        raw = read_bytes(self._fs.source, block * self._fs.geometry.block_size + offset, size)
        return stored_inode(self._fs, number, (block, offset), raw)

    def _blocks(self, inode: StoredInode) -> Iterator[tuple[int, bytes]]:
        for first, at, count in file_pieces(self._fs, inode):
            for index in range(count):
                yield first + index, self._fs.read(at + index)

    def _check_block(self, inode: StoredInode, index: int, block: bytes, tree: HashTree | None) -> None:
        checksums = self._fs.checksums
        table = tree.table_of(index, block) if tree is not None else None
        end = len(block)
        if table is None:
            if not checksums.directory_block_holds(inode.seed, block):
                self._found(FindingKind.DIRECTORY, inode, f"the checksum of block {index} of the directory is wrong")
            if checksums.active and _has_tail(block):
                end -= layout.DIRECTORY_TAIL.size
        elif not checksums.index_block_holds(inode.seed, block, table):
            self._found(FindingKind.HASHES, inode, f"the checksum of block {index} of the directory is wrong")
        is_hashed = bool(inode.flags & layout.ENCRYPT_FLAG and inode.flags & layout.CASEFOLD_FLAG)
        names: list[bytes] = []
        try:
            entries = stored_entries(block, end, extra=_HASH_SIZE if is_hashed else 0)
            if index == 0:
                self._check_own(inode, entries)
            for entry in entries:
                if entry.inode:
                    self._check_entry(inode, entry)
                    names.append(entry.name)
        except BrokenBlockError as error:
            self._found(FindingKind.DIRECTORY, inode, f"block {index} of the directory: {error}")
        self._check_names(inode, names)
        if tree is not None:
            tree.add(index, block, table, names)

    def _check_own(self, inode: StoredInode, entries: Iterator[StoredEntry]) -> None:
        """Check "." and "..", the first entries of the first block."""
        for expected in _OWN:
            entry = next(entries, None)
            if entry is None:
                raise BrokenBlockError(f"it has no entry {quoted(expected)}")
            if not entry.inode or entry.name != expected:
                text = f"its entry {quoted(expected)} is missing"
                self._found(FindingKind.DIRECTORY, inode, text)
                if entry.inode and entry.name not in _OWN:
                    self._check_entry(inode, entry)
                continue
            self._check_own_entry(inode, entry)

    def _check_own_entry(self, inode: StoredInode, entry: StoredEntry) -> None:
        if entry.name == b".":
            if entry.inode != inode.number:
                self._found(FindingKind.DIRECTORY, inode, f"its entry '.' names inode {entry.inode}")
                return
            if entry.length > 2 * SMALLEST:
                self._found(FindingKind.DIRECTORY, inode, "its entry '.' is too long")
        elif not self._is_possible(entry.inode):
            self._found(FindingKind.DIRECTORY, inode, f"its entry '..' names inode {entry.inode}")
            return
        else:
            self._inodes.set_dotdot(inode.number, entry.inode)
        kind = self._inodes.kind(entry.inode)
        if kind == FREE:
            self._found(
                FindingKind.DIRECTORY, inode, f"its entry {quoted(entry.name)} names inode {entry.inode}, which is free"
            )
            return
        if kind != UNKNOWN:
            self._inodes.name(entry.inode)
            self._check_type(inode, entry, kind)

    def _is_possible(self, number: int) -> bool:
        """True if entries may name the inode."""
        return number == layout.ROOT_INODE or (0 < number <= self._most and not self._checking.is_own(number))

    def _check_entry(self, inode: StoredInode, entry: StoredEntry) -> None:
        number, name = entry.inode, entry.name
        if not self._is_possible(number):
            self._entry(inode, name, f"names inode {number}, which cannot have a name")
            return
        if name in _OWN or number in (layout.ROOT_INODE, inode.number):
            text = "occurs twice" if name in _OWN else f"names inode {number}, the directory itself or the root"
            self._entry(inode, name, text)
        elif not name or ((b"/" in name or b"\0" in name) and not inode.flags & layout.ENCRYPT_FLAG):
            self._entry(inode, name, "has an invalid name")
        kind = self._inodes.kind(number)
        if kind == UNKNOWN:
            return
        if kind == FREE:
            self._entry(inode, name, f"names inode {number}, which is free")
            return
        self._check_type(inode, entry, kind)
        if kind == DIRECTORY:
            if self._inodes.parent(number):
                self._entry(inode, name, f"names the directory of inode {number}, which already has a name")
            else:
                self._inodes.set_parent(number, inode.number)
        self._inodes.name(number)

    def _check_type(self, inode: StoredInode, entry: StoredEntry, kind: int) -> None:
        if kind == IN_USE or self._fs.superblock.number("s_creator_os") == HURD:
            return
        expected = FILE_TYPES[kind] if self._has_types else 0
        if entry.file_type != expected:
            text = f"has the file type {entry.file_type}, expected {expected}"
            self._entry(inode, entry.name, text)

    def _check_names(self, inode: StoredInode, names: list[bytes]) -> None:
        if len({*names}) == len(names):
            return
        seen: set[bytes] = set()
        for name in names:
            if name in seen:
                self._entry(inode, name, "has the same name as another one in its block")
            seen.add(name)

    def _check_inline(self, inode: StoredInode) -> None:
        """Check the entries of a directory in its inode, which has no "." and only the inode of ".."."""

        def refuse(_number: int, _size: int) -> bytes:
            raise self._fs.not_believed("inline data in another inode")

        try:
            more = Xattrs(self._fs, refuse).inline_data(inode)
        except NotBelievedError:
            return  # reported by the check of its attributes
        parent = int.from_bytes(inode.i_block[:_INLINE_PARENT], "little")
        for name, number in ((b".", inode.number), (b"..", parent)):
            own = StoredEntry(0, SMALLEST, number, layout.FILE_TYPE_DIRECTORY if self._has_types else 0, name)
            self._check_own_entry(inode, own)
        for area in (inode.i_block[_INLINE_PARENT:], more):
            names: list[bytes] = []
            try:
                for entry in stored_entries(area, len(area)):
                    if entry.inode:
                        self._check_entry(inode, entry)
                        names.append(entry.name)
            except BrokenBlockError as error:
                self._found(FindingKind.DIRECTORY, inode, f"the entries in the inode: {error}")
            self._check_names(inode, names)

    def _entry(self, inode: StoredInode, name: bytes, text: str) -> None:
        self._found(FindingKind.ENTRY, inode, f"the entry {quoted(name, limit=64)} {text}")

    def _found(self, kind: FindingKind, inode: StoredInode, text: str) -> None:
        self._checking.found(kind, inode, text)


def _has_tail(block: bytes) -> bool:
    return is_directory_tail(layout.DIRECTORY_TAIL.unpack(block, len(block) - layout.DIRECTORY_TAIL.size))
