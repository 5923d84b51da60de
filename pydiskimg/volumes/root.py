# SPDX-License-Identifier: MIT
"""Whether a file system is the root of a Linux system."""

from __future__ import annotations

from pydiskimg.errors import DiskImageError
from pydiskimg.files.tree import ReadableTree

# A root has all of one line; a /usr, /boot or /home of its own has none.
_MARKS = (("/etc/os-release",), ("/etc/fstab", "/etc/passwd"), ("/etc", "/sbin/init"), ("/etc", "/bin/sh"))


def is_root(tree: ReadableTree) -> bool:
    """True when the tree has what the root of a Linux system has."""
    return any(all(_has(tree, path) for path in mark) for mark in _MARKS)


def _has(tree: ReadableTree, path: str) -> bool:
    """Count a symlink as there wherever it leads: it may lead to a /usr of its own."""
    try:
        tree.stat(path, follow_symlinks=False)
    except (FileNotFoundError, DiskImageError):
        return False
    return True
