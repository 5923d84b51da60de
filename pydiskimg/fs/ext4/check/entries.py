# SPDX-License-Identifier: MIT
"""The entries of one block of a directory, with all their stored fields, up to the first invalid one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.fs.ext4 import layout

_ENTRY = struct.Struct("<IHBB")
assert _ENTRY.size == layout.DIRECTORY_ENTRY.size
SMALLEST = 12
_LARGE_BLOCK = 1 << 16


class BrokenBlockError(Exception):
    """The entries of a block do not fill it; the text says where."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry with length bytes at position of its block; inode 0 means that it is free."""

    position: int
    length: int
    inode: int
    file_type: int
    name: bytes


def stored_entries(block: bytes, end: int, *, extra: int = 0) -> Iterator[StoredEntry]:
    """Yield the entries of a block up to its byte end; extra bytes follow each name. Raises BrokenBlockError."""
    position = 0
    while position < end:
        if end - position < _ENTRY.size:
            raise BrokenBlockError(f"its last entry does not end at byte {end}")
        inode, length, size, file_type = _ENTRY.unpack_from(block, position)
        if len(block) == _LARGE_BLOCK:
            length = _LARGE_BLOCK if length in (0, 0xFFFF) else length & 0xFFFC | (length & 3) << 16
        needed = _ENTRY.size + size + (extra if position >= 2 * SMALLEST else 0)
        if length < SMALLEST or length % 4 or position + length > end or needed > length:
            raise BrokenBlockError(f"it has an entry of {length} bytes with a name of {size} at byte {position}")
        name = block[position + _ENTRY.size : position + _ENTRY.size + size]
        yield StoredEntry(position, length, inode, file_type, name)
        position += length
