# SPDX-License-Identifier: MIT
"""The connections of inodes: every directory is below the root, ".." is its parent, and names match link counts."""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.check.checking import Checking
from pydiskimg.fs.ext4.check.found_inodes import DIRECTORY
from pydiskimg.fs.ext4.check.report import FindingKind
from pydiskimg.fs.ext4.features import RoCompat
from pydiskimg.fs.ext4.file_system import NotBelievedError
from pydiskimg.fs.ext4.inodes import read_inode

_LINK_MAX = 65000


def check_connections(checking: Checking) -> None:
    """Report directories that are not below the root, or whose ".." is not the directory with their entry."""
    inodes, report = checking.inodes, checking.report
    if inodes.kind(layout.ROOT_INODE) != DIRECTORY:
        report.add(FindingKind.INODE, "inode 2 is not the root directory")
        return
    inodes.set_parent(layout.ROOT_INODE, layout.ROOT_INODE)
    connected = {layout.ROOT_INODE}
    for number in inodes.directories():
        if number in checking.orphans:
            continue
        parent, dotdot = inodes.parent(number), inodes.dotdot(number)
        if not parent:
            report.add(FindingKind.UNCONNECTED, f"inode {number}: it is a directory without a name")
        elif dotdot and dotdot != parent:
            report.add(FindingKind.DIRECTORY, f"inode {number}: its entry '..' names inode {dotdot}, expected {parent}")
        if parent and not _is_connected(checking, number, connected):
            report.add(FindingKind.UNCONNECTED, f"inode {number}: its parent directories form a circle")


def _is_connected(checking: Checking, number: int, connected: set[int]) -> bool:
    """Follow the parents of a directory; False if they form a circle."""
    way: set[int] = set()
    while number and number not in connected:
        if number in way:
            connected |= way  # each circle is reported once
            return False
        way.add(number)
        number = checking.inodes.parent(number)
    connected |= way
    return True


def check_links(checking: Checking) -> None:
    """Report inodes whose link count differs from the number of their entries."""
    report, inodes = checking.report, checking.inodes
    for number, links, names in inodes.links():
        if checking.is_own(number) or number in checking.orphans:
            continue
        is_directory = inodes.kind(number) == DIRECTORY
        if not names:
            report.add(FindingKind.UNCONNECTED, f"inode {number}: it is in use, but no entry names it")
        elif is_directory and names > _LINK_MAX and links == 1:
            if not checking.has(RoCompat.DIR_NLINK):
                report.add(FindingKind.LINK_COUNT, f"inode {number}: it has more links than the file system allows")
        elif links != names and not (is_directory and links == 1 and _has_hashes(checking, number)):
            report.add(FindingKind.LINK_COUNT, f"inode {number}: its link count is {links}, expected {names}")


def _has_hashes(checking: Checking, number: int) -> bool:
    """True for a directory with a tree of hashes: it may have had more subdirectories than links can count."""
    try:
        return bool(read_inode(checking.fs, number).flags & layout.INDEX_FLAG)
    except NotBelievedError:
        return False
