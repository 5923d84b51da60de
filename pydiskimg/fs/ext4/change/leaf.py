# SPDX-License-Identifier: MIT
"""The entries of one block of a directory, found, added and taken away (directory.rst).

    | inode, rec_len, name | inode, rec_len, name, free room | ... up to the block's end, or its tail with the checksum

An entry reaches to the next one by its rec_len. One that is taken away becomes room of the one before it; the first of
a block stays, with inode 0.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.directory_writer import entry_length
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError

_HEADER = layout.DIRECTORY_ENTRY.size
_LONGEST = 65535  # rec_len of an entry as long as a block of 64 KiB


@dataclass(frozen=True, slots=True)
class Slot:
    """An entry at offset of its block, with length bytes up to the next; inode 0: it is free. name is what it says."""

    offset: int
    length: int
    inode: int
    file_type: int
    name: bytes

    @property
    def room(self) -> int:
        """Bytes that another entry could have of it."""
        return self.length - (entry_length(self.name) if self.inode else 0)


class Leaf:
    """The entries of one block of the directory that where names; has_tail: with a checksum of its own.

    A block of hashes looks as if it were without entries, but for "." and ".." in the first one.
    """

    def __init__(self, fs: FileSystem, data: bytes, where: str) -> None:
        self._fs = fs
        self.data = bytearray(data)
        self._where = where
        self.has_tail = fs.checksums.active and _has_tail(data)
        self._end = len(data) - (layout.DIRECTORY_TAIL.size if self.has_tail else 0)

    def slots(self) -> Iterator[Slot]:
        """Yield all entries. Raises NotBelievedError where they do not fill the block."""
        at = 0
        while at < self._end:
            if self._end - at < _HEADER:
                raise self._damaged(at)
            entry = layout.DIRECTORY_ENTRY.unpack(self.data, at)
            length, size = int(entry["rec_len"]), int(entry["name_len"])
            if length in (0, _LONGEST) and len(self.data) > _LONGEST:
                length = len(self.data)
            if length % 4 or not _HEADER <= length <= self._end - at or _HEADER + size > length:
                raise self._damaged(at)
            name = bytes(self.data[at + _HEADER : at + _HEADER + size])
            yield Slot(at, length, int(entry["inode"]), int(entry["file_type"]), name)
            at += length

    def find(self, name: bytes) -> Slot | None:
        return next((slot for slot in self.slots() if slot.inode and slot.name == name), None)

    def insert(self, inode: int, name: bytes, file_type: int) -> bool:
        """Add an entry where there is room for it; False where there is none."""
        needed = entry_length(name)
        slot = next((slot for slot in self.slots() if slot.room >= needed), None)
        if slot is None:
            return False
        at = slot.offset
        if slot.inode:
            at += entry_length(slot.name)
            self._put(slot.offset, rec_len=at - slot.offset)
        length = slot.offset + slot.length - at
        self.data[at : at + length] = bytes(length)
        self._put(at, inode=inode, rec_len=length, name_len=len(name), file_type=file_type)
        self.data[at + _HEADER : at + _HEADER + len(name)] = name
        return True

    def remove(self, name: bytes) -> bool:
        """Take an entry away; False where there is none."""
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

    def remove_all(self, names: Collection[bytes]) -> bool:
        """Take all entries away that have one of names; False where there are none."""
        before: Slot | None = None
        is_changed = False
        for slot in self.slots():
            if not slot.inode or slot.name not in names:
                before = slot
                continue
            is_changed = True
            if before is None:
                self._put(slot.offset, inode=0)
                before = replace(slot, inode=0)
            else:
                before = replace(before, length=before.length + slot.length)
                self._put(before.offset, rec_len=before.length)
        return is_changed

    def point(self, name: bytes, inode: int, file_type: int) -> bool:
        """Make an entry one of another inode; False where there is none."""
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
