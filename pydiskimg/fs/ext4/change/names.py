# SPDX-License-Identifier: MIT
"""The names in directories as they will be: changed in memory, and written together, once for each directory."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.bitmaps import runs_of
from pydiskimg.fs.ext4.change.directories import FEW_NAMES, LARGE_DIRECTORY, ChangedDirectory
from pydiskimg.fs.ext4.change.files import FileChanges
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.tree.files import RefusedError

_KEPT_NAMES = 1 << 18  # in all directories; 40 MB
_A_DIRECTORY = 3  # names, which take as much as a dictionary
_IN_A_BLOCK = 15  # names that are taken away, one after the other, as they are stored
_KEPT_SIZE = 4 << 20  # bytes of a directory whose names are kept
_OPENED = 4  # larger ones
_AT_ONCE = 1 << 12  # inodes of a group of bits


class Names:
    """What the names in directories stand for, by the inodes of both.

    A directory in with_times keeps the times that its inode has when its names are written; others get the present.
    Raises RefusedError, OutOfSpaceError and NotBelievedError as FileChanges does.
    """

    def __init__(self, changes: FileChanges) -> None:
        self.with_times = InodeSet()
        self._changes = changes
        self._known: dict[int, dict[bytes, int]] = {}
        self._count = 0
        self._waiting: dict[int, dict[bytes, StoredInode | None]] = {}
        self._more_links: dict[int, int] = {}
        self._parents: dict[int, int] = {}  # of directories that are not written yet
        self._opened: dict[int, ChangedDirectory] = {}
        self._scattered: dict[int, int] = {}  # names that each go to a block of its own

    @property
    def size(self) -> int:
        """How many blocks, at most, that are in use will change when the names that wait are written."""
        few = sum(2 + max(min(len(names), FEW_NAMES), len(names) // _IN_A_BLOCK) for names in self._waiting.values())
        return few + sum(self._scattered.values())

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the inode that a name stands for."""
        known = self._known.get(directory)
        if known is None:
            known = self._read(directory)
        if known is not None:
            return known.get(name)
        waiting = self._waiting.get(directory, {})
        if name in waiting:
            inode = waiting[name]
            return None if inode is None else inode.number
        if directory not in self._opened:
            if len(self._opened) >= _OPENED:
                self._opened.clear()
            self._opened[directory] = self._directory(directory)
        return self._opened[directory].find(name)

    def is_empty(self, directory: int) -> bool:
        """Tell whether a directory has no names."""
        self.write(directory)
        return self._directory(directory).is_empty()

    def put(self, directory: int, name: bytes, inode: StoredInode) -> None:
        """Have a name, old or new, stand for inode."""
        if not 0 < len(name) <= layout.NAME_MAX:
            text = f"would have a name of {len(name)} bytes (1 to {layout.NAME_MAX} are possible)"
            raise RefusedError(text, errno.ENAMETOOLONG)
        if directory in self._known:
            self._known[directory][name] = inode.number
            self._count += 1
        if directory in self._scattered:
            self._scattered[directory] += 1
        self._waiting.setdefault(directory, {})[name] = inode

    def remove(self, directory: int, name: bytes) -> None:
        """Take a name away, which is there."""
        if directory in self._known:
            self._known[directory].pop(name, None)
        self._waiting.setdefault(directory, {})[name] = None

    def begin(self, directory: StoredInode, parent: int, name: bytes) -> None:
        """Put a new directory, which has no blocks yet, into parent."""
        links = self._more_links.get(parent, 0) + 1
        self._changes.links_with(self._changes.inode(parent), links)  # now, while it is known which file is refused
        self.put(parent, name, directory)
        self._more_links[parent] = links
        self._known[directory.number], self._waiting[directory.number] = {}, {}
        self._count += _A_DIRECTORY
        self._parents[directory.number] = parent

    def remove_directory(self, directory: int, parent: int, name: bytes) -> None:
        """Take the name of a directory away, and forget the directory, in which no names are left."""
        self.remove(parent, name)
        self._more_links[parent] = self._more_links.get(parent, 0) - 1
        for kept in self._kept:
            kept.pop(directory, None)
        self.with_times.discard(directory)

    def write(self, directory: int) -> None:
        """Write the names of one directory that wait."""
        waiting = self._waiting.pop(directory, None)
        if waiting is not None:
            links, keeps_times = self._more_links.pop(directory, 0), directory in self.with_times
            parent = self._parents.pop(directory, None)
            self._opened.pop(directory, None)
            self._changes.change_names(directory, waiting, parent=parent, links=links, keeps_times=keeps_times)
            self._scattered.pop(directory, None)
            self._note_large(self._changes.inode(directory))

    def write_all(self) -> None:
        """Write all names that wait."""
        for directory in list(self._waiting):
            self.write(directory)
        if self._count > _KEPT_NAMES:
            self._known.clear()
            self._count = 0

    def forget(self) -> None:
        """Forget all names, also those that wait."""
        for kept in self._kept:
            kept.clear()
        self.with_times.clear()
        self._count = 0

    @property
    def _kept(self) -> tuple[dict[int, Any], ...]:
        """All that is known of directories by their inodes."""
        return self._known, self._waiting, self._more_links, self._parents, self._opened, self._scattered

    def _note_large(self, inode: StoredInode) -> None:
        if inode.size >= LARGE_DIRECTORY:
            self._scattered.setdefault(inode.number, 0)

    def _directory(self, directory: int) -> ChangedDirectory:
        return self._changes.directory(self._changes.inode(directory))

    def _read(self, directory: int) -> dict[bytes, int] | None:
        """Return the names of a directory; None for one that is too large."""
        inode = self._changes.inode(directory)
        self._note_large(inode)
        if inode.size > _KEPT_SIZE or directory in self._waiting:
            return None
        known: dict[bytes, int] = {}
        for name, number, _ in self._changes.directory(inode).entries():
            known.setdefault(name, number)
        if self._count > _KEPT_NAMES and not self._waiting:
            self._known.clear()
            self._count = 0
        self._known[directory] = known
        self._count += _A_DIRECTORY + len(known)
        return known


class InodeSet:
    """Numbers of inodes, a bit for each: those of a million files lie close together."""

    def __init__(self) -> None:
        self._bits: dict[int, int] = {}

    def add(self, number: int) -> None:
        group, bit = divmod(number, _AT_ONCE)
        self._bits[group] = self._bits.get(group, 0) | 1 << bit

    def discard(self, number: int) -> None:
        group, bit = divmod(number, _AT_ONCE)
        self._bits[group] = self._bits.get(group, 0) & ~(1 << bit)

    def clear(self) -> None:
        self._bits.clear()

    def __contains__(self, number: int) -> bool:
        group, bit = divmod(number, _AT_ONCE)
        return bool(self._bits.get(group, 0) >> bit & 1)

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers, in order."""
        for group in sorted(self._bits):
            for start, end in runs_of(self._bits[group]):
                yield from range(group * _AT_ONCE + start, group * _AT_ONCE + end)
