# SPDX-License-Identifier: MIT
"""The changes in the usage of users, groups and projects by one transaction."""

from __future__ import annotations

from collections.abc import Callable

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import RoCompat
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.inodes import StoredInode

Charge = tuple[tuple[int, int, int], int, int]
"""Owner, group and project of an inode, and its usage: bytes, and inodes including those of values."""


class UsageChanges:
    """The usage of the inodes that a transaction stores, before and after it; nothing without quota files."""

    def __init__(self, fs: FileSystem) -> None:
        number = fs.superblock.number
        names = ("s_usr_quota_inum", "s_grp_quota_inum", "s_prj_quota_inum")
        has_quota = RoCompat.QUOTA in fs.geometry.features
        self.files = tuple(number(name) if has_quota else 0 for name in names)
        """The inodes of the quota files of users, groups and projects; 0 where there is none."""
        self.count_values: Callable[[StoredInode], int] = lambda _: 0
        """The number of inodes that hold values of an inode's attributes."""
        self._fs = fs
        self._first = fs.superblock.first_inode
        self._own = {*self.files, number("s_orphan_file_inum")}
        self._charges: dict[int, tuple[Charge | None, Charge | None]] = {}

    def made(self, number: int) -> None:
        """Note that an inode was free before; the bytes in its table are an earlier file's."""
        if any(self.files):
            self._charges.setdefault(number, (None, None))

    def stored(self, old: Callable[[], StoredInode], inode: StoredInode) -> None:
        """Note the new state of an inode; old returns the previous state."""
        if not any(self.files) or not self._is_charged(inode):
            return
        if inode.number in self._charges:
            before = self._charges[inode.number][0]
        else:
            found = old()
            before = self._charge(found) if self._is_charged(found) else None
        self._charges[inode.number] = before, self._charge(inode)

    def released(self, inode: StoredInode) -> None:
        """Note that an inode is free from now on; it was stored before."""
        if inode.number in self._charges:
            self._charges[inode.number] = self._charges[inode.number][0], None

    def renumbered(self, inode: StoredInode, number: int) -> None:
        """Note that an inode gets another number, under which it is stored next."""
        if any(self.files) and self._is_charged(inode):
            charge = self._charge(inode)
            self._charges[number] = self._charges.pop(inode.number, (charge, charge))

    def copy(self) -> dict[int, tuple[Charge | None, Charge | None]]:
        return dict(self._charges)

    def restore(self, charges: dict[int, tuple[Charge | None, Charge | None]]) -> None:
        """Return to the result of copy(); an empty one discards all."""
        self._charges = dict(charges)

    def changes(self, kind: int) -> dict[int, tuple[int, int]]:
        """Return by id the additional bytes and inodes of users (0), groups (1) or projects (2)."""
        found: dict[int, tuple[int, int]] = {}
        for charges in self._charges.values():
            for charge, sign in zip(charges, (-1, 1), strict=True):
                if charge is not None:
                    ids, space, inodes = charge
                    before = found.get(ids[kind], (0, 0))
                    found[ids[kind]] = before[0] + sign * space, before[1] + sign * inodes
        return {number: change for number, change in found.items() if change != (0, 0)}

    def _is_charged(self, inode: StoredInode) -> bool:
        is_own = inode.number < self._first and inode.number != layout.ROOT_INODE
        return not is_own and inode.number not in self._own and not inode.flags & layout.EA_INODE_FLAG

    def _charge(self, inode: StoredInode) -> Charge:
        blocks = int(inode.fields["i_blocks_lo"])
        unit = 512
        if RoCompat.HUGE_FILE in self._fs.geometry.features:
            blocks |= int(inode.fields["i_blocks_high"]) << 32
            unit = self._fs.geometry.block_size if inode.flags & layout.HUGE_FILE_FLAG else 512
        return (inode.uid, inode.gid, inode.project), blocks * unit, 1 + self.count_values(inode)
