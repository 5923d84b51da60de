# SPDX-License-Identifier: MIT
"""The names in a dump's directories, checked, and looked up by inode number in ascending order.

Only this memory grows with the file system: the directories' bytes as in the dump, and Python's objects for each
directory and each name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.files.dump.layout import DIRBLKSIZ, DIRECT, ROOTINO
from pydiskimg.files.dump.reader import Inode
from pydiskimg.text import printable, quoted

# The limit of that memory in bytes: about seven million names of usual length.
_LARGEST = 512 << 20
_DIRECTORY_OVERHEAD = 1800
_NAME_OVERHEAD = 48
_SHOWN_PATH = 200
# Levels of directories. One far down is opened by walking there, for each of its files; most deeper ones cannot be
# reached by a path of 4096 bytes, which restore(8) needs.
_DEEPEST = 1024


@dataclass(slots=True, eq=False)
class Directory:
    """A directory of the dump; data are its entries. The fields with defaults are known once the tree is built."""

    inode: Inode
    index: int
    data: bytes
    parent: Directory | None = None
    name: bytes = b""
    depth: int = 0
    path_length: int = 0
    children: list[Directory] = field(default_factory=list)

    @property
    def number(self) -> int:
        return self.inode.number

    @property
    def path(self) -> bytes:
        """The whole path in the dump, once the tree is built."""
        parts = []
        at = self
        while at.parent is not None:
            parts.append(at.name)
            at = at.parent
        return b"/" + b"/".join(reversed(parts))


class Name(NamedTuple):
    """One name of an inode: its directory, and the type in the entry (DT_*)."""

    directory: Directory
    name: bytes
    kind: int


class Names:
    """Collects directories by add(); build() checks them; of() then returns the names of inodes, in ascending order."""

    def __init__(self, dump: str, order: str) -> None:
        self._dump = dump
        self._order = order
        self._direct = DIRECT[order]
        self._directories: list[Directory] = []
        self._by_number: dict[int, Directory] = {}
        self._size = 0
        self._keys: list[int] = []
        self._at = 0

    def add(self, inode: Inode, data: bytes) -> None:
        """Add a directory and its entries. Raises InvalidImageError when memory would exceed the limit."""
        attributes = sum(map(len, inode.xattrs.values())) + sum(map(len, inode.acls.values())) * _NAME_OVERHEAD
        self._grow(len(data) + attributes + _DIRECTORY_OVERHEAD)
        header = inode.header._replace(c_addr=b"", c_label=b"", c_filesys=b"", c_dev=b"", c_host=b"", c_spare=b"")
        directory = Directory(Inode(header, inode.xattrs, inode.acls), len(self._directories), data)
        self._directories.append(directory)
        self._by_number[inode.number] = directory

    def build(self) -> list[Directory]:
        """Return all directories, each after its parent.

        Raises InvalidImageError unless they are one tree, UnsupportedImageError for one of more than 1024 levels.
        """
        root = self._by_number.get(ROOTINO)
        if root is None:
            raise InvalidImageError(f"{self._dump}: holds no root directory (inode {ROOTINO}); the dump is damaged")
        found = [root]
        for directory in found:  # grows
            self._take(directory)
            found += directory.children
        if len(found) < len(self._directories):
            known = set(map(id, found))
            lost = next(directory for directory in self._directories if id(directory) not in known)
            raise self._error(lost, "no other directory names it")
        self._keys.sort()
        return found

    def of(self, number: int) -> list[Name]:
        """Return the names of an inode that is not a directory; the numbers must not decrease from call to call."""
        keys, at = self._keys, self._at
        low = number << 64
        while at < len(keys) and keys[at] < low:
            at += 1
        end = at
        high = (number + 1) << 64
        while end < len(keys) and keys[end] < high:
            end += 1
        self._at = end
        return [self._name(key) for key in keys[at:end]]

    def numbers(self) -> Iterator[int]:
        """Yield the inode number of every name that is not a directory's, ascending."""
        return (key >> 64 for key in self._keys)

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > _LARGEST:
            raise InvalidImageError(
                f"{self._dump}: its directories and names need more than {_LARGEST} bytes of memory"
            )

    def _name(self, key: int) -> Name:
        directory = self._directories[key >> 32 & 0xFFFFFFFF]
        position = key & 0xFFFFFFFF
        _, _, kind, length = self._direct.unpack_from(directory.data, position)
        start = position + self._direct.size
        return Name(directory, directory.data[start : start + length], kind)

    def _take(self, directory: Directory) -> None:
        """Give names to the directories in this one, and record those of all other files."""
        before = len(self._keys)
        low = directory.index << 32
        dots = {b".": directory.number, b"..": directory.parent.number if directory.parent else ROOTINO}
        for number, position, name in self._entries(directory):
            if name in (b".", b".."):
                if number != dots.pop(name, 0):
                    raise self._error(
                        directory, f"its entry {printable(name)} leads to inode {number}, or occurs twice"
                    )
            elif (child := self._by_number.get(number)) is not None:
                self._adopt(directory, child, name)
            else:
                self._keys.append(number << 64 | low | position)
        self._grow((len(self._keys) - before) * _NAME_OVERHEAD)

    def _adopt(self, directory: Directory, child: Directory, name: bytes) -> None:
        if child.parent is not None or child.number == ROOTINO:
            raise self._error(directory, f"its entry {printable(name)} is a directory that already has a name")
        if directory.depth == _DEEPEST:
            raise UnsupportedImageError(
                f"{self._dump}: directory {printable(path_of(directory))} (inode {directory.number}) lies {_DEEPEST} "
                "levels deep, and has subdirectories; deeper ones are not restored"
            )
        child.parent, child.name, child.depth = directory, name, directory.depth + 1
        child.path_length = directory.path_length + 1 + len(name)
        self._grow(child.path_length)  # the writer of directories keeps their paths
        directory.children.append(child)

    def _entries(self, directory: Directory) -> Iterator[tuple[int, int, bytes]]:
        """Yield inode number, position and name of each entry in use."""
        data, direct = directory.data, self._direct
        position, size = 0, len(data)
        if size % DIRBLKSIZ:
            raise self._error(directory, f"it has {size} bytes, not a multiple of {DIRBLKSIZ}")
        while position < size:
            number, length, _, name_length = direct.unpack_from(data, position)
            start = position + direct.size
            room = DIRBLKSIZ - position % DIRBLKSIZ
            if length % 4 or not direct.size <= length <= room or (number and start + name_length > position + length):
                raise self._error(directory, f"its entry at byte {position} has an impossible length")
            if number:
                name = data[start : start + name_length]
                if not name or b"/" in name or b"\0" in name:
                    raise self._error(directory, f"the name {quoted(name)} is invalid")
                yield number, position, name
            position += length

    def _error(self, directory: Directory, what: str) -> InvalidImageError:
        where = f"directory {printable(path_of(directory))} (inode {directory.number})"
        return InvalidImageError(f"{self._dump}: {where}: {what}; the dump is damaged")


def path_of(directory: Directory, name: bytes = b"") -> bytes:
    """Return the path of a directory, or of a name in it, from the dump's root; only its end if it is long."""
    parts = [name] if name else []
    at: Directory | None = directory
    length = 0
    while at is not None and at.parent is not None:
        parts.append(at.name)
        length += len(at.name)
        at = at.parent
        if length > _SHOWN_PATH:
            return b".../" + b"/".join(reversed(parts))
    if at is not None and at.number != ROOTINO:
        return b"?/" + b"/".join(reversed(parts)) if parts else b"?"
    return b"/" + b"/".join(reversed(parts))
