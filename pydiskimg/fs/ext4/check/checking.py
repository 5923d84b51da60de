# SPDX-License-Identifier: MIT
"""The state that the parts of a check share: the file system as recovery leaves it, and the findings so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.check.claims import Claims
from pydiskimg.fs.ext4.check.found_inodes import FoundInodes
from pydiskimg.fs.ext4.check.report import ExtReport, FindingKind
from pydiskimg.fs.ext4.features import Feature
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name


@dataclass
class Checking:
    """A check of fs. claims has the clusters found in use, inodes the findings on inodes.

    orphans are the inodes that wait to be deleted or truncated; metadata has the bits of the clusters of the groups'
    own metadata, by group.
    """

    fs: FileSystem
    report: ExtReport
    orphans: frozenset[int] = frozenset()
    claims: Claims = field(init=False)
    inodes: FoundInodes = field(init=False)
    metadata: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.claims = Claims(self.fs.geometry)
        self.inodes = FoundInodes(self.fs.geometry.inodes_per_group)

    def has(self, feature: Feature) -> bool:
        return feature in self.fs.geometry.features

    @cached_property
    def quota_inodes(self) -> tuple[int, ...]:
        """The inodes that hold usage and limits of users, groups and projects; 0 where there are none."""
        names = ("s_usr_quota_inum", "s_grp_quota_inum", "s_prj_quota_inum")
        return tuple(self.fs.superblock.number(name) for name in names)

    def is_own(self, number: int) -> bool:
        """True for an inode of the file system itself that no directory names."""
        if number < self.fs.superblock.first_inode:
            return number != layout.ROOT_INODE
        return number in self._own_files

    @cached_property
    def _own_files(self) -> frozenset[int]:
        return self.fs.superblock.own_files

    def found(self, kind: FindingKind, inode: StoredInode, text: str) -> None:
        """Report damage of an inode."""
        self.report.add(kind, f"{inode_name(inode.number)}: {text}")

    def claim(self, start: int, end: int, what: str) -> None:
        """Claim blocks for what, and report those that are already claimed."""
        claimed = self.claims.claim(start, end)
        if claimed is not None:
            self.report.add(FindingKind.SHARED, f"block {claimed} of {what} is in use twice")
