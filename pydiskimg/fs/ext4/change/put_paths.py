# SPDX-License-Identifier: MIT
"""The place of an entry's path in an existing file system; its symlinks lead where the guest would follow them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydiskimg.files.resolve import UnsafePathError, components
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.batch import ChangeBatch
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.tree.entry_paths import EntryPaths, Named, NewName


class PutPaths(EntryPaths):
    """Entries' paths below the last of steps. target returns the target of a symlink's inode.

    Raises as EntryPaths and FileChanges do.
    """

    def __init__(
        self,
        batch: ChangeBatch,
        steps: Sequence[int],
        target: Callable[[StoredInode], bytes],
        make_directory: Callable[[NewName], int],
    ) -> None:
        self._names, self._changes = batch.names, batch.changes
        super().__init__(steps, self._named, lambda number: target(self._changes.inode(number)), make_directory)

    def found(self, name: NewName) -> StoredInode | None:
        """Return the file of a name."""
        number = self._names.find(*name)
        return None if number is None else self._changes.inode(number)

    def as_directory(self, path: bytes, name: NewName) -> StoredInode | None:
        """Return the directory of a name, to which path leads, or the one that the symlink there leads to."""
        found = self.found(name)
        if found is None or found.kind == layout.DIRECTORY:
            return found
        if found.kind != layout.SYMLINK:
            return None
        try:
            return self._changes.inode(self.walked(components(path), make=False))
        except (FileNotFoundError, UnsafePathError):
            return None

    def _named(self, directory: int, name: bytes) -> Named | None:
        found = self.found(NewName(directory, name))
        return None if found is None else Named(found.number, layout.FILE_TYPES[found.kind])
