# SPDX-License-Identifier: MIT
"""Grow an ext2, ext3 or ext4 file system to the size of its Disk.

    plan (nothing is written) ── replay ── new groups, flush ── blocks that the smaller one also has ── copies, flush

The blocks that the smaller file system also has (superblock, last group, descriptors, resize inode) go through its
journal as one transaction: at every instant the disk has the old or the new file system. A file system without a
journal is marked as not unmounted meanwhile, and e2fsck -p repairs it after an interruption. ADR 0055.
"""

from __future__ import annotations

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4.descriptors import Descriptor, read_descriptors
from pydiskimg.fs.ext4.features import Compat
from pydiskimg.fs.ext4.file_system import NotBelievedError
from pydiskimg.fs.ext4.grow_geometry import larger
from pydiskimg.fs.ext4.journal_writer import replay
from pydiskimg.fs.ext4.mount_protection import check_not_mounted, protected
from pydiskimg.fs.ext4.recovery import RecoveredSource
from pydiskimg.fs.ext4.resize_inode import regrown_reserve, without_reserve
from pydiskimg.fs.ext4.resizing import Resizing
from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.protocols import Disk
from pydiskimg.records import Value
from pydiskimg.regions.claims import require_unclaimed


def plan_ext_growth(disk: Disk) -> ExtGrowth:
    """Return how the file system at the start of disk grows to its end; nothing is written.

    Raises FileSystemError for a file system that is damaged, has unknown features or cannot be grown here,
    DoesNotFitError for a disk that is too large for it, InUseError if an open tree changes it, StorageError as reading
    does.
    """
    require_unclaimed(disk)
    try:
        return ExtGrowth(disk)
    except NotBelievedError as error:
        raise FileSystemError(
            f"{disk.name}: its ext file system cannot be grown: {error.reason}; check it (e2fsck -f)"
        ) from error


class ExtGrowth(Resizing):
    """The changes for growing, computed from the file system as it is after recovery; size is in bytes, of the larger
    one.

    Until write() has returned no other process may write to the disk.
    """

    def __init__(self, disk: Disk) -> None:
        usage = ExtUsage(disk)
        check_not_mounted(usage.fs)
        if isinstance(usage.fs.source, RecoveredSource):
            usage.fs.source.check_copies()  # now, and not when a part of them has been written where it belongs
        old = usage.fs.geometry
        super().__init__(disk, usage, larger(old, disk.size, disk.name))
        self._first_table = (old.groups - 1) // old.desc_per_block
        if self.gains:
            freed = self._plan_reserve()
            self._fields |= self._new_counts(*self._plan_groups(freed))
            self._plan_changes()

    def write(self) -> None:
        """Make the file system larger. Raises StorageError; the existing data is then intact."""
        if not self.gains and not self._usage.replayed_blocks:
            return
        with protected(self._disk, self._fs) as protection:
            protection.take()
            replay(self._disk, self._fs)
            if self.gains:
                self._write_new_groups()
                protection.check()
                self._switch()
            else:  # it was grown up to here before
                self._write_superblock(self._fields)
            self._write_copies()

    def _write_new_groups(self) -> None:
        self._groups.write(self._disk)
        for number in range(self._first_table, self._new.desc_blocks):
            if self._is_new(self._new.descriptor_block(number)):
                self._writer.write(self._new.descriptor_block(number), self._table(number))
        # Without its first copy the larger file system would not be believed (beginning.py) until the last step.
        self._write_superblocks(first=self._old.groups)
        self._disk.flush()

    def _plan_reserve(self) -> int | None:
        """Plan the resize inode, and return the block that it frees if its reserve is used up."""
        if Compat.RESIZE_INODE not in self._old.features:
            return None
        freed = None
        if Compat.RESIZE_INODE in self._new.features:
            changes = regrown_reserve(self._fs, self._new)
        else:
            freed, changes = without_reserve(self._fs)
        for block, data in changes.items():
            self._change(block, data)
        return freed

    def _plan_groups(self, freed: int | None) -> tuple[int, int]:
        """Plan the changed old groups, and return how many clusters and inodes will be free in all old groups."""
        old, new, last = self._old, self._new, self._old.groups - 1
        changes_last = new.group_size(last) != old.group_size(last) or new.group_head(last) != old.group_head(last)
        changed = ({last} if changes_last else set()) | (set() if freed is None else {old.group_of(freed)})
        clusters = inodes = 0
        for descriptor in read_descriptors(self._fs):
            self._check_intact(descriptor)
            inodes += descriptor.free_inodes
            if descriptor.group in changed:
                clusters += self._plan_group(descriptor, self._clusters_in_use(descriptor, freed))
            else:
                clusters += descriptor.free_blocks
        return clusters, inodes

    def _clusters_in_use(self, descriptor: Descriptor, freed: int | None) -> int:
        """Return the bits of an old group's clusters that are in use in the larger file system."""
        old, new, group = self._old, self._new, descriptor.group
        bits = self._usage.clusters_in_use(descriptor)
        if isinstance(bits, str):
            raise self._fs.not_believed(f"group {group}: {bits}")
        gone = 0
        if freed is not None and old.group_of(freed) == group:
            gone = 1 << (freed - old.group_start(group)) // old.cluster_blocks
            if gone & self._usage.metadata_clusters(group) or not gone & bits:
                raise self._fs.not_believed(f"block {freed} of its resize inode is not in use, or by other metadata")
        before, after = ((1 << shape.clusters_in(shape.group_head(group))) - 1 for shape in (old, new))
        if before != after:  # the copy of the superblock moves away
            gone |= before & ~self._usage.table_clusters(group)
        return (bits & ~gone | after) & (1 << new.group_clusters(group)) - 1

    def _new_counts(self, free_clusters: int, free_inodes: int) -> dict[str, Value]:
        """Return the changed fields of the superblock; the counts are those of the old groups."""
        old, new = self._old, self._new
        if new.features != old.features and not self._fs.superblock.number("s_rev_level"):
            raise self._fs.not_believed("it has revision 0, which cannot have the descriptors of more groups")
        groups = range(old.groups, new.groups)
        free_clusters += sum(map(self._groups.free_clusters, groups))
        return self._counts(free_clusters, free_inodes + new.inodes_per_group * len(groups))

    def _plan_changes(self) -> None:
        """Collect the blocks that the smaller file system also uses, except its superblock."""
        numbers = {group // self._new.desc_per_block for group in self._descriptors}
        for number in sorted(numbers.union(range(self._first_table, self._new.desc_blocks))):
            block = self._new.descriptor_block(number)
            if not self._is_new(block):
                self._change(block, self._table(number))
        self._change(self._primary, b"")
        del self._changes[self._primary]

    def _is_new(self, block: int) -> bool:
        return block >= self._old.blocks
