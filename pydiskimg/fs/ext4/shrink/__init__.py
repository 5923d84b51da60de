# SPDX-License-Identifier: MIT
"""An ext2, ext3 or ext4 file system made smaller, without a mount.

minimum ── how small it can become, by its groups alone
survey ── which inodes have something after the new end
tables, journal, blocks, renumber ── what moves, each in transactions that leave it whole
switch ── the transaction that cuts it
"""

from pydiskimg.fs.ext4.shrink.minimum import minimum_size
from pydiskimg.fs.ext4.shrink.shrink import shrink_ext

__all__ = ["minimum_size", "shrink_ext"]
