# SPDX-License-Identifier: MIT
"""ext2, ext3 and ext4: the on-disk layout, and a maker of empty file systems."""

from pydiskimg.fs.ext4.make import ExtInfo, make_ext

__all__ = ["ExtInfo", "make_ext"]
