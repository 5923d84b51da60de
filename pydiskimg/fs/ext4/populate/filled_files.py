# SPDX-License-Identifier: MIT
"""The files of file systems that are being filled, as a tree reads them; they may change between calls."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pydiskimg.fs.ext4.contents import FileSource, InlineSource
from pydiskimg.fs.ext4.directory_entries import NamedInode
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.populate.filler import Filler
from pydiskimg.fs.ext4.tree.files import ExtFiles, with_device


class FilledFiles(ExtFiles):
    """ExtFiles over a Filler, across both of its file systems; st_dev is 0 in the first and 1 in the second."""

    def __init__(self, filler: Filler) -> None:
        self._filler = filler
        super().__init__(filler.file_systems[0].blocks.fs)

    def inode(self, number: int) -> StoredInode:
        return self._filler.files_of(number).stored(number)

    def entries(self, directory: StoredInode) -> Iterator[NamedInode]:
        for name, named in self._filler.names.in_directory(directory.number):
            yield name, self._filler.paths.entered(named.inode), named.file_type

    def find(self, directory: StoredInode, name: bytes) -> int | None:
        found = self._filler.names.find(directory.number, name)
        return None if found is None else self._filler.paths.entered(found.inode)

    def contents(self, inode: StoredInode, name: str) -> FileSource | InlineSource:
        return self._files(inode).contents(inode, name)

    def target(self, inode: StoredInode) -> bytes:
        return self._files(inode).target(inode)

    def attributes(self, inode: StoredInode) -> dict[bytes, bytes]:
        return self._files(inode).attributes(inode)

    def status(self, inode: StoredInode) -> os.stat_result:
        """Return the status; the link count and the blocks of a directory are known only at the end."""
        files = self._filler.files_of(inode.number)
        return with_device(self._files(inode).status(inode), self._filler.file_systems.index(files))

    def _files(self, inode: StoredInode) -> ExtFiles:
        return self._filler.files_of(inode.number).blocks.files
