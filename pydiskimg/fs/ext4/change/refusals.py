# SPDX-License-Identifier: MIT
"""What is read and not changed: features of a file system."""

from __future__ import annotations

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import NOT_CHANGED, Compat, Incompat
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.protocols import read_bytes

_POINTER_LIMIT = 1 << 32  # blocks that a map of pointers reaches


def check_changeable(fs: FileSystem) -> None:
    """Raise FileSystemError for a file system that is not changed here; as reading does."""
    problem = next((f"the feature {name}" for feature, name in NOT_CHANGED if feature in fs.geometry.features), None)
    if problem is None and Compat.HAS_JOURNAL in fs.geometry.features and not fs.superblock.journal_inode:
        problem = "a journal on another device"
    if problem is None and Incompat.EXTENTS not in fs.geometry.features and fs.geometry.blocks > _POINTER_LIMIT:
        problem = f"{fs.geometry.blocks} blocks and no extents"
    if problem is not None:
        raise FileSystemError(f"{fs.name}: files of an ext file system with {problem} are not changed here")
    _check_not_mounted(fs)


def _check_not_mounted(fs: FileSystem) -> None:
    """Look at what multiple mount protection says."""
    if Incompat.MMP not in fs.geometry.features:
        return
    block = fs.superblock.number("s_mmp_block")
    if not fs.geometry.first_data_block <= block < fs.geometry.blocks:
        raise fs.not_believed(f"its block of multiple mount protection is {block}, of {fs.geometry.blocks}")
    fields = layout.MMP.unpack(read_bytes(fs.source, block * fs.geometry.block_size, layout.MMP.size))
    if (fields["mmp_magic"], fields["mmp_seq"]) != (layout.MMP_MAGIC, layout.MMP_CLEAN):
        raise FileSystemError(
            f"{fs.name}: its ext file system is in use, says its multiple mount protection; unmount it, or check it "
            "(e2fsck)"
        )
