# SPDX-License-Identifier: MIT
"""Remove a directory with everything below it, some files at a time, the deepest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.allocation import OutOfSpaceError
from pydiskimg.fs.ext4.change.batch import ChangeBatch
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.tree.files import RefusedError

_AT_ONCE = 1 << 16  # names of a directory that are in memory

Errors = Callable[[bytes], AbstractContextManager[None]]
"""Called with a path; returns a context in which errors name the file at this path."""


@dataclass(slots=True)
class _Level:
    """A directory on the way down: its parent and its name there, and its remaining names."""

    number: int
    parent: int
    name: bytes
    left: Iterator[tuple[bytes, int]]


class TreeRemover:
    """Removes the contents of a directory, and the directory; errors gives the context for the file at a path."""

    def __init__(self, fs: FileSystem, batch: ChangeBatch, errors: Errors) -> None:
        self._fs = fs
        self._batch = batch
        self._errors = errors
        self._top = self._name = b""

    def remove(self, parent: int, name: bytes, inode: StoredInode, path: bytes) -> None:
        """Remove the directory of inode, which has this name in parent and this path. Raises as the errors contexts do.

        After an error, the files removed since the last commit still exist.
        """
        self._top = path
        with self._errors(path):
            levels = [self._level(inode, parent, name)]
        above = {inode.number}
        with self._named(levels):
            while levels:
                self._remove_next(levels, above)
        with self._errors(path):
            self._batch.commit()

    def _remove_next(self, levels: list[_Level], above: set[int]) -> None:
        """Remove the next file of the last level, or enter it if it is a directory, or remove the level itself."""
        level = levels[-1]
        self._name = b""
        found = next(level.left, None) or self._more(level)
        if found is None:
            self._remove_directory(level)
            levels.pop()
            above.discard(level.number)
            return
        self._name, number = found
        below = self._remove_or_enter(level, self._name, number, above)
        if below is not None:
            levels.append(below)

    @contextmanager
    def _named(self, levels: list[_Level]) -> Iterator[None]:
        """Make errors in the block name the current file. There may be many levels, so no path is kept."""
        try:
            yield
        except (RefusedError, NotBelievedError, OutOfSpaceError):
            path = b"/".join([self._top, *(level.name for level in levels[1:]), *filter(None, [self._name])])
            with self._errors(path):
                raise

    def _remove_or_enter(self, level: _Level, name: bytes, number: int, above: set[int]) -> _Level | None:
        """Remove a file; for a directory return the level."""
        with self._batch.change(None):
            child = self._child(number, above)
            if child.kind == layout.DIRECTORY:
                above.add(number)
                return self._level(child, level.number, name)
            self._batch.names.remove(level.number, name)
            self._batch.changes.drop(child)
            return None

    def _child(self, number: int, above: set[int]) -> StoredInode:
        if number in above or number == layout.ROOT_INODE:
            raise self._fs.not_believed(f"the directory of inode {number} has two names")
        return self._batch.changes.inode(number)

    def _level(self, inode: StoredInode, parent: int, name: bytes) -> _Level:
        return _Level(inode.number, parent, name, iter(self._names(inode)))

    def _names(self, inode: StoredInode) -> list[tuple[bytes, int]]:
        entries = self._batch.changes.directory(inode).entries()
        return [(name, number) for name, number, _ in islice(entries, _AT_ONCE)]

    def _more(self, level: _Level) -> tuple[bytes, int] | None:
        """Return the next name of a directory that has more than are in memory at once."""
        inode = self._batch.changes.inode(level.number)
        if inode.size < _AT_ONCE:  # less than a byte for each
            return None
        self._batch.names.write(level.number)
        level.left = iter(self._names(self._batch.changes.inode(level.number)))
        return next(level.left, None)

    def _remove_directory(self, level: _Level) -> None:
        with self._batch.change(None):
            inode = self._batch.changes.inode(level.number)
            self._batch.changes.check_changeable(inode)
            self._batch.names.remove_directory(level.number, level.parent, level.name)
            self._batch.changes.drop(inode)
