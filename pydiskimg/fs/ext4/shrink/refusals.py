# SPDX-License-Identifier: MIT
"""File systems that cannot be shrunk, each refused by a sentence before anything is written."""

from __future__ import annotations

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.refusals import check_own_files
from pydiskimg.fs.ext4.features import Compat
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.grow_geometry import refuse_resizing
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name
from pydiskimg.fs.ext4.orphans import orphans


def check_shrinkable(fs: FileSystem) -> None:
    """Raise FileSystemError for a file system that cannot be shrunk here; errors as for reading."""
    refuse_resizing(fs.geometry, fs.name)
    if Compat.HAS_JOURNAL in fs.geometry.features and not fs.superblock.journal_inode:
        raise FileSystemError(f"{fs.name}: an ext file system with a journal on another device cannot be shrunk")
    check_own_files(fs)
    waiting = orphans(fs)
    if waiting:
        raise FileSystemError(
            f"{fs.name}: inode {min(waiting)} of its ext file system waits to be deleted or truncated after a crash; "
            "check it (e2fsck -f)"
        )


def check_renumbered(fs: FileSystem, inode: StoredInode, most: int | None) -> None:
    """Raise FileSystemError for an inode of a removed group that must keep its number.

    The checksum of each block of a directory depends on the inode's number: all of them change together; most is the
    limit of one commit (None: no limit).
    """
    reason, blocks = None, 0
    if inode.kind == layout.DIRECTORY and fs.checksums.active and not inode.flags & layout.INLINE_DATA_FLAG:
        blocks = inode.size // fs.geometry.block_size
    if Compat.STABLE_INODES in fs.geometry.features:
        reason = "the feature stable_inodes"
    elif inode.number in fs.superblock.own_files:
        reason = "a file of the file system itself"
    elif most is not None and blocks > most:
        reason = f"a directory of {blocks} blocks, of which the journal holds {most} at a time"
    if reason is not None:
        raise FileSystemError(
            f"{fs.name}: {inode_name(inode.number)} of its ext file system must keep its number ({reason}), which "
            "would be after its end; nothing was moved; try a larger size"
        )
