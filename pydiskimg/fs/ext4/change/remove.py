# SPDX-License-Identifier: MIT
"""A directory taken away with everything below it, some files at a time, the deepest first."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.batch import ChangeBatch
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.tree.files import RefusedError

_AT_ONCE = 1 << 16  # names of a directory that are in memory
_MOST_LEVELS = 1 << 16

Errors = Callable[[bytes], AbstractContextManager[None]]
"""Called with a path, where what is raised within is to name the file at this path."""


@dataclass(slots=True)
class _Level:
    """A directory on the way down: its path, its parent and its name there, and the names that are left of it."""

    number: int
    parent: int
    name: bytes
    path: bytes
    left: Iterator[tuple[bytes, int]]


class TreeRemover:
    """Removes what is below a directory, and the directory; errors gives the context for the file at a path."""

    def __init__(self, fs: FileSystem, batch: ChangeBatch, errors: Errors) -> None:
        self._fs = fs
        self._batch = batch
        self._errors = errors

    def remove(self, parent: int, name: bytes, inode: StoredInode, path: bytes) -> None:
        """Remove the directory of inode, which has this name in parent and this path. Raises what errors makes of it.

        After an error what was removed since the last commit is there again.
        """
        with self._errors(path):
            levels = [self._level(inode, parent, name, path)]
        above = {inode.number}
        while levels:
            level = levels[-1]
            found = next(level.left, None) or self._more(level)
            if found is None:
                levels.pop()
                above.discard(level.number)
                self._remove_directory(level)
                continue
            below = level.path + b"/" + found[0]
            with self._errors(below), self._batch.change():
                child = self._child(found[1], above)
                if child.kind == layout.DIRECTORY:
                    if len(levels) >= _MOST_LEVELS:
                        raise RefusedError(f"lies below more than {_MOST_LEVELS} directories", errno.ENAMETOOLONG)
                    above.add(child.number)
                    levels.append(self._level(child, level.number, found[0], below))
                else:
                    self._batch.names.remove(level.number, found[0])
                    self._batch.changes.drop(child)
        with self._errors(path):
            self._batch.commit()

    def _child(self, number: int, above: set[int]) -> StoredInode:
        if number in above or number == layout.ROOT_INODE:
            raise self._fs.not_believed(f"the directory of inode {number} has two names")
        return self._batch.changes.inode(number)

    def _level(self, inode: StoredInode, parent: int, name: bytes, path: bytes) -> _Level:
        return _Level(inode.number, parent, name, path, iter(self._names(inode)))

    def _names(self, inode: StoredInode) -> list[tuple[bytes, int]]:
        entries = self._batch.changes.directory(inode).entries()
        return [(name, number) for name, number, _ in islice(entries, _AT_ONCE)]

    def _more(self, level: _Level) -> tuple[bytes, int] | None:
        """Return the next name of a directory that has more than are in memory at once."""
        with self._errors(level.path):
            inode = self._batch.changes.inode(level.number)
            if inode.size < _AT_ONCE:  # less than a byte for each
                return None
            self._batch.names.write(level.number)
            level.left = iter(self._names(self._batch.changes.inode(level.number)))
        return next(level.left, None)

    def _remove_directory(self, level: _Level) -> None:
        with self._errors(level.path), self._batch.change():
            inode = self._batch.changes.inode(level.number)
            self._batch.changes.check_changeable(inode)
            self._batch.names.remove_directory(level.number, level.parent, level.name)
            self._batch.changes.drop(inode)
