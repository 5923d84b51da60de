# SPDX-License-Identifier: MIT
"""The entries of one block of a directory, found, added and taken away (directory.rst).

    | inode, rec_len, name | inode, rec_len, name, free room | ... up to the block's end, or its tail with the checksum

An entry reaches to the next one by its rec_len. One that is taken away becomes room of the one before it; the first of
a block stays, with inode 0.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.directory_writer import entry_length
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name

_HEADER = layout.DIRECTORY_ENTRY.size
_LONGEST = 65535  # rec_len of an entry as long as a block of 64 KiB


class Slot(NamedTuple):
    """An entry at offset of its block, with length bytes up to the next; inode 0: it is free. name is what it says."""

    offset: int
    length: int
    inode: int
    file_type: int
    name: bytes


class Leaf:
    """The entries of one block of a directory, named by where; has_tail: with a checksum of its own.

    A block of hashes looks like one without entries, except "." and ".." in the first one.
    """

    def __init__(self, fs: FileSystem, data: bytes, where: str) -> None:
        self._fs = fs
        self.data = bytearray(data)
        self._where = where
        self.has_tail = fs.checksums.active and _has_tail(data)
        self._end = len(data) - (layout.DIRECTORY_TAIL.size if self.has_tail else 0)
        self._no_room = 0, 0  # bytes for which there is no room before an offset

    @classmethod
    def read(cls, fs: FileSystem, block: int, directory: StoredInode) -> Leaf:
        """Return a block of a directory. Raises NotBelievedError if its checksum is wrong."""
        return cls.intact(fs, block, fs.read(block), directory)

    @classmethod
    def intact(cls, fs: FileSystem, block: int, data: bytes, directory: StoredInode) -> Leaf:
        """As read(), for a block that was read."""
        where = inode_name(directory.number)
        leaf = cls(fs, data, where)
        if leaf.has_tail and not fs.checksums.directory_block_holds(directory.seed, data):
            raise fs.not_believed(f"{where}: the checksum of its block {block} is wrong")
        return leaf

    def slots(self) -> Iterator[Slot]:
        """Yield all entries. Raises NotBelievedError if they do not fill the block."""
        for at, (inode, length, size, file_type) in self._headers():
            yield Slot(at, length, inode, file_type, bytes(self.data[at + _HEADER : at + _HEADER + size]))

    def _headers(self, start: int = 0) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
        """Yield where each entry is, and its inode, length, length of the name and file_type; raises as slots().

        start is where an entry begins.
        """
        at, end, data, is_large = start, self._end, self.data, len(self.data) > _LONGEST
        while at < end:
            if end - at < _HEADER:
                raise self._damaged(at)
            inode, length, size, file_type = layout.DIRECTORY_ENTRY.values(data, at)
            if is_large and length in (0, _LONGEST):
                length = len(data)
            if length % 4 or not _HEADER <= length <= end - at or _HEADER + size > length:
                raise self._damaged(at)
            yield at, (inode, length, size, file_type)
            at += length

    def find(self, name: bytes) -> Slot | None:
        if name not in self.data:
            return None
        return next((slot for slot in self.slots() if slot.inode and slot.name == name), None)

    def insert(self, inode: int, name: bytes, file_type: int) -> bool:
        """Add an entry where there is room for it; False where there is none."""
        needed = entry_length(name)
        searched, start = self._no_room
        for at, (other, length, size, _) in self._headers(start if needed >= searched else 0):
            taken = _HEADER + (size + 3 & ~3) if other else 0
            if length - taken < needed:
                continue
            self._no_room = needed, at
            if taken:
                self._put(at, rec_len=taken)
            start, room = at + taken, length - taken
            self.data[start : start + room] = bytes(room)
            self._put(start, inode=inode, rec_len=room, name_len=len(name), file_type=file_type)
            self.data[start + _HEADER : start + _HEADER + len(name)] = name
            return True
        return False

    def remove(self, name: bytes) -> bool:
        """Remove an entry; False if there is no such entry."""
        self._no_room = 0, 0
        before: Slot | None = None
        for slot in self.slots():
            if slot.inode and slot.name == name:
                if before is None:
                    self._put(slot.offset, inode=0)
                else:
                    self._put(before.offset, rec_len=before.length + slot.length)
                return True
            before = slot
        return False

    def remove_all(self, names: Collection[bytes]) -> set[bytes]:
        """Take all entries away that have one of names, and return which ones there were."""
        self._no_room = 0, 0
        before: Slot | None = None
        found: set[bytes] = set()
        for slot in self.slots():
            if not slot.inode or slot.name not in names:
                before = slot
                continue
            found.add(slot.name)
            if before is None:
                self._put(slot.offset, inode=0)
                before = slot._replace(inode=0)
            else:
                before = before._replace(length=before.length + slot.length)
                self._put(before.offset, rec_len=before.length)
        return found

    def point(self, name: bytes, inode: int, file_type: int) -> bool:
        """Point an entry to another inode; False if there is no such entry."""
        slot = self.find(name)
        if slot is not None:
            self._put(slot.offset, inode=inode, file_type=file_type)
        return slot is not None

    def sealed(self, seed: int) -> bytes:
        """Return the block with its checksum; seed is the directory's."""
        self._fs.checksums.directory_block(seed, self.data)
        return bytes(self.data)

    def _put(self, at: int, **values: int) -> None:
        if values.get("rec_len", 0) > _LONGEST:
            values["rec_len"] = _LONGEST
        layout.DIRECTORY_ENTRY.put(self.data, values, at)

    def _damaged(self, at: int) -> NotBelievedError:
        return self._fs.not_believed(f"{self._where}: a block of its entries makes no sense at byte {at}")


def has_entries(data: bytes) -> bool:
    """Return False for a block without entries, and for one of hashes other than the first, which looks like that."""
    inode, length, _, _ = layout.DIRECTORY_ENTRY.values(data)
    return bool(inode) or not len(data) - layout.DIRECTORY_TAIL.size <= length <= len(data)


def _has_tail(data: bytes) -> bool:
    """Tell whether a block ends with a tail. One of hashes has entries up to its end, "." and ".." or an unused one,
    and may have kept the bytes of a tail from when it was a block of entries."""
    if len(data) < layout.DIRECTORY_TAIL.size:
        return False
    tail = layout.DIRECTORY_TAIL.unpack(data, len(data) - layout.DIRECTORY_TAIL.size)
    if tail["det_reserved_zero1"] or tail["det_rec_len"] != layout.DIRECTORY_TAIL.size:
        return False
    end = int(layout.DIRECTORY_ENTRY.unpack(data)["rec_len"])
    if end + _HEADER <= len(data):
        end += int(layout.DIRECTORY_ENTRY.unpack(data, end)["rec_len"])
    return end != len(data)
