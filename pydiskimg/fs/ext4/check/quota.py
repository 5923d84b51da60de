# SPDX-License-Identifier: MIT
"""The usage of users, groups and projects, counted by the inodes found, and compared with the quota files."""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.check.checking import Checking
from pydiskimg.fs.ext4.check.report import FindingKind
from pydiskimg.fs.ext4.features import RoCompat
from pydiskimg.fs.ext4.file_system import NotBelievedError
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.quota_file import QuotaFile

KINDS = ("user", "group", "project")
_MOST_IDS = 1 << 18  # of all kinds; some 250 bytes of memory each


class QuotaUsage:
    """The bytes and inodes of each id, if the file system has quota files of the kind."""

    def __init__(self, checking: Checking) -> None:
        self._checking = checking
        has_quota = checking.has(RoCompat.QUOTA)
        self._kinds = [kind for kind, number in enumerate(checking.quota_inodes) if has_quota and number]
        self._used: dict[tuple[int, int], list[int]] = {}
        self._is_complete = True

    def add(self, inode: StoredInode, space: int, inodes: int) -> None:
        """Count a file's space in bytes, and its inodes: its own and those of the values of its attributes."""
        if not self._kinds or inode.flags & layout.EA_INODE_FLAG:
            return
        for kind in self._kinds:
            key = kind, (inode.uid, inode.gid, inode.project)[kind]
            used = self._used.get(key)
            if used is None:
                if len(self._used) >= _MOST_IDS:
                    self._is_complete = False
                    return
                used = self._used[key] = [0, 0, 0]
            used[0] += space
            used[1] += inodes
            used[2] += inode.kind == layout.SYMLINK and bool(inode.flags & layout.INLINE_DATA_FLAG)

    def compare(self) -> None:
        """Report differences from the quota files."""
        report = self._checking.report
        if not self._is_complete:
            report.unchecked.append(f"quota files: more than {_MOST_IDS} users, groups and projects have files")
            return
        for kind in self._kinds:
            try:
                self._compare(kind)
            except NotBelievedError as error:
                report.add(FindingKind.QUOTA, error.reason)

    def _compare(self, kind: int) -> None:
        file = QuotaFile(self._checking.fs, self._checking.quota_inodes[kind], kind)
        left = {number: used for (one, number), used in self._used.items() if one == kind}
        for _, entry in file.entries():
            used = left.pop(entry["dqb_id"], [0, 0, 0])
            self._compare_id(kind, entry["dqb_id"], used, (entry["dqb_curspace"], entry["dqb_curinodes"]))
        for number, used in left.items():
            self._compare_id(kind, number, used, (0, 0))

    def _compare_id(self, kind: int, number: int, used: list[int], stored: tuple[int, int]) -> None:
        space, inodes, inline_symlinks = used
        # The kernel counts symlinks whose targets are inline data, and e2fsck 1.47 does not.
        if space == stored[0] and inodes - inline_symlinks <= stored[1] <= inodes:
            return
        self._checking.report.add(
            FindingKind.QUOTA,
            f"{KINDS[kind]} {number} has {space} bytes in {inodes} inodes, but the quota file says {stored[0]} "
            f"bytes in {stored[1]}",
        )
