# SPDX-License-Identifier: MIT
"""Whether a file system is the root of a Linux system."""

from __future__ import annotations

from pydiskimg.errors import DiskImageError
from pydiskimg.files.tree import ReadableTree

# A root has all of one line; a separate /usr, /boot or /home does not.
_MARKS = (("/etc/os-release",), ("/etc/fstab", "/etc/passwd"), ("/etc", "/sbin/init"), ("/etc", "/bin/sh"))


def is_root(tree: ReadableTree) -> bool:
    """True when the tree has the files of a Linux root."""
    return any(all(_has(tree, path) for path in mark) for mark in _MARKS)


def _has(tree: ReadableTree, path: str) -> bool:
    """Count a symlink as present, wherever it leads: it may lead to a separate /usr."""
    try:
        tree.stat(path, follow_symlinks=False)
    except (FileNotFoundError, DiskImageError):
        return False
    return True
