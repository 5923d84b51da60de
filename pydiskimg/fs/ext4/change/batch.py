# SPDX-License-Identifier: MIT
"""Change many files, committed some at a time: after each commit every file is either unchanged or complete."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.files import FileChanges
from pydiskimg.fs.ext4.change.names import Names
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.tree.files import RefusedError

_AT_ONCE = 8 << 20  # bytes of changed blocks after which a commit follows
_PART_OF_ROOM = 2  # room for one more change
_CONTENTS_AT_ONCE = 64 << 20  # bytes of files
_MORE_CLUSTERS = 4  # for a file: of its map, its attributes, its directory


class ChangeBatch:
    """The changes since the last commit; names has the changed directories, which wait for the next one.

    An error in change() undoes all changes since the last commit. With is_together nothing is committed here.
    """

    def __init__(self, transaction: Transaction, changes: FileChanges, *, is_together: bool) -> None:
        self.changes = changes
        self.names = Names(changes)
        self._transaction = transaction
        self._is_together = is_together
        self._most = min(_AT_ONCE // transaction.fs.geometry.block_size, transaction.room // _PART_OF_ROOM)
        self._cluster = transaction.fs.geometry.cluster_blocks * transaction.fs.geometry.block_size
        self._begin()

    def _begin(self) -> None:
        self._savepoint = self._transaction.savepoint()
        self._left = self._transaction.free_clusters  # if no file has holes
        self._written = 0
        self.gave_back = False

    @contextmanager
    def change(self, size: int | None = 0) -> Iterator[None]:
        """Change one file in the block, of size bytes, and commit when enough was changed; None: it takes no blocks.

        Earlier changes are committed first if the files together become large, so that only the change of a large one
        has to fit into the journal, and if blocks become scarce, because freed blocks can be used after a commit. Set
        gave_back when an inode was freed: without a journal another file must not use it before the commit.
        """
        try:
            size, needed = (0, 0) if size is None else (size, -(-size // self._cluster) + _MORE_CLUSTERS)
            if self._written + size >= _CONTENTS_AT_ONCE or needed > self._left:
                self._commit()
            self._left -= needed
            self._written += size
            yield
            if self._transaction.size + self.names.size >= self._most or (
                self.gave_back and not self._transaction.has_journal
            ):
                self._commit()
        except BaseException:
            self.take_back()
            raise

    def put(self, directory: int, name: bytes, inode: StoredInode) -> None:
        """Make a name in a directory refer to a new file, replacing another file that is not a directory."""
        old = self.names.find(directory, name)
        if old is not None:
            found = self.changes.inode(old)
            if found.kind == layout.DIRECTORY:
                raise RefusedError("is a directory", errno.EISDIR)
            self.changes.drop(found)
            self.gave_back = True
        self.names.put(directory, name, inode)

    def commit(self) -> None:
        """Commit the changes. Raises as Transaction.commit() does."""
        try:
            self._commit()
        except BaseException:
            self.take_back()
            raise

    def _commit(self) -> None:
        self.names.write_all()
        if not self._is_together:
            self._transaction.commit()
            self._begin()

    def take_back(self) -> None:
        """Discard the changes since the last commit."""
        self.names.forget()
        self._transaction.restore(self._savepoint)
