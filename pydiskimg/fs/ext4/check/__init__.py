# SPDX-License-Identifier: MIT
"""Check an ext2, ext3 or ext4 file system: which of its structures contradict each other. Nothing is changed.

report ── kinds of findings, counted, with a sentence for each of the first
check ── the order: superblock, journal, groups, inodes, directories, link counts, bitmaps
"""

from pydiskimg.fs.ext4.check.check import check_ext
from pydiskimg.fs.ext4.check.report import ExtReport, FindingKind

__all__ = ["ExtReport", "FindingKind", "check_ext"]
