# SPDX-License-Identifier: MIT
"""The names in directories as they will be: changed in memory, and written together, once for each directory."""

from __future__ import annotations

import errno
from typing import Any

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.directories import FEW_NAMES, LARGE_DIRECTORY, ChangedDirectory
from pydiskimg.fs.ext4.change.files import FileChanges
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.tree.files import RefusedError

_KEPT_NAMES = 1 << 18  # in all directories; 40 MB
_IN_A_BLOCK = 15  # names that are taken away, one after the other, as they are stored
_KEPT_SIZE = 4 << 20  # bytes of a directory whose names are kept
_OPENED = 4  # larger ones

Times = tuple[int, int]
"""Of the last access and the last change, in nanoseconds since 1970."""


class Names:
    """What the names in directories stand for, by the inodes of both.

    times says which times a directory gets when its names are written; without them they are the present. Raises
    RefusedError, OutOfSpaceError and NotBelievedError as FileChanges does.
    """

    def __init__(self, changes: FileChanges) -> None:
        self.times: dict[int, Times] = {}
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
        """Have a name stand for inode, whatever it stood for before."""
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
        self._parents[directory.number] = parent

    def remove_directory(self, directory: int, parent: int, name: bytes) -> None:
        """Take the name of a directory away, and forget the directory, in which no names are left."""
        self.remove(parent, name)
        self._more_links[parent] = self._more_links.get(parent, 0) - 1
        for kept in self._kept:
            kept.pop(directory, None)

    def write(self, directory: int) -> None:
        """Write the names of one directory that wait."""
        waiting = self._waiting.pop(directory, None)
        if waiting is not None:
            times, links = self.times.get(directory), self._more_links.pop(directory, 0)
            parent = self._parents.pop(directory, None)
            self._opened.pop(directory, None)
            self._changes.change_names(directory, waiting, parent=parent, links=links, times=times)
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
        self._count = 0

    @property
    def _kept(self) -> tuple[dict[int, Any], ...]:
        """All that is known of directories by their inodes."""
        known = self._known, self._waiting, self._more_links, self._parents, self.times
        return *known, self._opened, self._scattered

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
        self._count += len(known)
        return known
