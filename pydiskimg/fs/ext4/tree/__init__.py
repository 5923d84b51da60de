# SPDX-License-Identifier: MIT
"""The files of an ext file system as a Tree that is read: no mount, no root, no program.

open ── the file system as recovery would leave it, in memory
files ── everything about a file, by its inode
tree ── everything by its path, which never leaves the file system
"""

from pydiskimg.fs.ext4.tree.open import open_ext_tree
from pydiskimg.fs.ext4.tree.tree import ExtTree

__all__ = ["ExtTree", "open_ext_tree"]
