# SPDX-License-Identifier: MIT
"""The files of an ext file system as a Tree that is read: no mount, no root, no program.

files ── everything about a file, by its inode
tree ── the file system as recovery would leave it, in memory; everything by its path, which never leaves it
"""

from pydiskimg.fs.ext4.tree.tree import ExtTree, open_ext_tree

__all__ = ["ExtTree", "open_ext_tree"]
