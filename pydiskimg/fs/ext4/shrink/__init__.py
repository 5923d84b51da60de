# SPDX-License-Identifier: MIT
"""Shrink an ext2, ext3 or ext4 file system, without a mount.

minimum                              how small it can become, by its groups alone
survey                               which inodes have blocks after the new end
tables, journal, blocks, renumber    the moves, each in transactions that keep the file system consistent
switch                               the transaction that cuts it
"""

from pydiskimg.fs.ext4.shrink.minimum import minimum_size
from pydiskimg.fs.ext4.shrink.shrink import shrink_ext

__all__ = ["minimum_size", "shrink_ext"]
