# SPDX-License-Identifier: MIT
"""File systems that are read but not changed: with some features, or with fields for features that they lack."""

from __future__ import annotations

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4.features import NOT_CHANGED, Compat, Incompat
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.mount_protection import check_not_mounted

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
    check_own_files(fs)
    check_not_mounted(fs)


def check_own_files(fs: FileSystem) -> None:
    """Raise FileSystemError for a superblock that names a file for a feature that the file system does not have."""
    misnamed = fs.superblock.file_without_feature
    if misnamed is not None:
        field, number, feature = misnamed
        raise FileSystemError(
            f"{fs.name}: its ext file system is not changed: its superblock names inode {number} in {field}, without "
            f"the feature {feature.name}; set it to 0 (debugfs -w -R 'set_super_value {field.removeprefix('s_')} 0')"
        )
