# SPDX-License-Identifier: MIT
"""The files of a file system in their future state, while changes of them wait for the next commit."""

from __future__ import annotations

from pydiskimg.fs.ext4.change.batch import ChangeBatch
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.tree.files import ExtFiles


class PendingFiles:
    """The files that paths are resolved with. Raises as FileChanges does."""

    def __init__(self, batch: ChangeBatch, files: ExtFiles) -> None:
        self._batch, self._files = batch, files

    def inode(self, number: int) -> StoredInode:
        """Return an inode that may be changed."""
        return self._batch.changes.inode(number)

    def find(self, directory: StoredInode, name: bytes) -> int | None:
        """Return the inode of a name in a directory; None if it has none of this name."""
        return self._batch.names.find(directory.number, name)

    def target(self, inode: StoredInode) -> bytes:
        """Return the target of a symlink."""
        return self._files.target(inode)
