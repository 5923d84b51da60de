# SPDX-License-Identifier: MIT
"""The files of an ext file system as a Tree that can be read: without mount, root or external programs.

files    everything about a file, by its inode
tree     the file system as recovery would leave it, in memory; everything by paths, which never leave the tree
"""

from pydiskimg.fs.ext4.tree.tree import ExtTree, open_ext_tree

__all__ = ["ExtTree", "open_ext_tree"]
