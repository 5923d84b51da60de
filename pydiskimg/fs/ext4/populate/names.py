# SPDX-License-Identifier: MIT
"""All names of a file system that is filled, in few bytes each: a million of them must fit in memory.

Names are stored one after the other in one buffer. A hash table finds a name; the names of a directory are chained.
Both use 32-bit numbers of units; a name's record begins at a multiple of a unit.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator

from pydiskimg.fs.ext4.populate.space import FullError
from pydiskimg.fs.ext4.tree.entry_paths import Named

_NAME = struct.Struct(
    "<I"  # 0 inode; 0 if the name was removed
    "I"  # 4   unit of the directory's name before; 0: there is none
    "B"  # 8   file_type
    "B"  # 9   length of the name
    "I"  # 10  inode of the directory; the name follows
)
_LENGTH_AT, _DIRECTORY_AT = 9, 10
_UNIT = 4
_MOST = ((1 << 32) - 1) * _UNIT
_FIRST_SIZE = 1 << 12
_FULL = 2 / 3


class NameTable:
    """The names of all directories, by the directories' inodes."""

    def __init__(self) -> None:
        self._names = bytearray(_UNIT)  # so that unit 0 means none
        self._slots = array("I", bytes(4 * _FIRST_SIZE))
        self._count = 0
        self._last: dict[int, int] = {}
        self._missed: tuple[int, bytes, int] | None = None  # what find() did not find last, and the slot for it

    def find(self, directory: int, name: bytes) -> Named | None:
        slot, offset = self._slot(directory, name)
        if offset is None:
            self._missed = directory, name, slot
            return None
        inode, _, file_type, _, _ = _NAME.unpack_from(self._names, offset)
        return Named(inode, file_type) if inode else None

    def add(self, directory: int, name: bytes, inode: int, file_type: int) -> None:
        """Add a new name. Raises FullError when there are more than can be numbered."""
        missed, self._missed = self._missed, None
        if missed is not None and missed[1] is name and missed[0] == directory:  # most names are looked for first
            slot = missed[2]
        else:
            slot, found = self._slot(directory, name)
            if found is not None:
                self._set(found, inode, file_type)
                return
        offset = len(self._names)
        if offset > _MOST:
            raise FullError(f"the names of all files take more than {_MOST >> 30} GiB of memory")
        unit = offset // _UNIT
        self._names += _NAME.pack(inode, self._last.get(directory, 0), file_type, len(name), directory) + name
        self._names += bytes(-len(self._names) % _UNIT)
        self._last[directory] = self._slots[slot] = unit
        self._count += 1
        if self._count > len(self._slots) * _FULL:
            self._grow()

    def remove(self, directory: int, name: bytes) -> None:
        """Remove an existing name."""
        _, offset = self._slot(directory, name)
        assert offset is not None
        self._set(offset, 0, 0)

    def in_directory(self, directory: int) -> Iterator[tuple[bytes, Named]]:
        """Yield the names in a directory, latest first."""
        for unit in self.units(directory):
            name, inode, file_type = self.at(unit)
            yield name, Named(inode, file_type)

    def units(self, directory: int) -> Iterator[int]:
        """Yield the units of the names in a directory, latest first."""
        unit = self._last.get(directory, 0)
        while unit:
            inode, previous, *_ = _NAME.unpack_from(self._names, unit * _UNIT)
            if inode:
                yield unit
            unit = previous

    def at(self, unit: int) -> tuple[bytes, int, int]:
        """Return the name of a unit, its inode and its file_type."""
        offset = unit * _UNIT
        inode, _, file_type, length, _ = _NAME.unpack_from(self._names, offset)
        start = offset + _NAME.size
        return bytes(self._names[start : start + length]), inode, file_type

    def forget_lookups(self) -> None:
        """Free the memory that find() needs; find() and add() must not be called afterwards."""
        self._slots = array("I")

    def _set(self, offset: int, inode: int, file_type: int) -> None:
        _, previous, _, length, directory = _NAME.unpack_from(self._names, offset)
        _NAME.pack_into(self._names, offset, inode, previous, file_type, length, directory)

    def _slot(self, directory: int, name: bytes) -> tuple[int, int | None]:
        """Return the index in the table for a name, and its offset. The hash is Python's, with a random key."""
        slots, names = self._slots, self._names
        key = directory.to_bytes(4, "little") + name
        length = len(name)
        slot = hash(key) % len(slots)
        while found := slots[slot]:
            offset = found * _UNIT
            if names[offset + _LENGTH_AT] == length and names.startswith(key, offset + _DIRECTORY_AT):
                return slot, offset
            slot += 1
            if slot == len(slots):
                slot = 0
        return slot, None

    def _grow(self) -> None:
        size = 2 * len(self._slots)
        self._slots = slots = array("I", bytes(4 * size))
        offset, names = _UNIT, self._names
        while offset < len(names):
            end = offset + _NAME.size + names[offset + _LENGTH_AT]
            slot = hash(bytes(names[offset + _DIRECTORY_AT : end])) % size
            while slots[slot]:
                slot = (slot + 1) % size
            slots[slot] = offset // _UNIT
            offset = end + -end % _UNIT
