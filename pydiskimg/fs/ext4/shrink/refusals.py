# SPDX-License-Identifier: MIT
"""File systems that are not made smaller, each by a sentence, before anything is written."""

from __future__ import annotations

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4.features import Compat
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.grow_geometry import refuse_resizing
from pydiskimg.fs.ext4.orphans import orphans


def check_shrinkable(fs: FileSystem) -> None:
    """Raise FileSystemError for a file system that is not made smaller here; as reading does."""
    refuse_resizing(fs.geometry, fs.name)
    if Compat.HAS_JOURNAL in fs.geometry.features and not fs.superblock.journal_inode:
        raise FileSystemError(f"{fs.name}: an ext file system with a journal on another device is not made smaller")
    waiting = orphans(fs)
    if waiting:
        raise FileSystemError(
            f"{fs.name}: inode {min(waiting)} of its ext file system waits to be deleted or cut after a crash; "
            "check it (e2fsck -f)"
        )
