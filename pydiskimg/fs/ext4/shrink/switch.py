# SPDX-License-Identifier: MIT
"""The last step: a file system that uses nothing beyond the new end becomes the smaller one."""

from __future__ import annotations

from pydiskimg.fs.ext4.descriptors import Descriptor, locations, read_descriptors
from pydiskimg.fs.ext4.features import Compat
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.journal_writer import replay
from pydiskimg.fs.ext4.mount_protection import MountProtection
from pydiskimg.fs.ext4.recovery import RecoveredSource
from pydiskimg.fs.ext4.resize_inode import regrown_reserve
from pydiskimg.fs.ext4.resizing import Resizing
from pydiskimg.fs.ext4.usage import ExtUsage, clusters_of, metadata_ranges
from pydiskimg.protocols import Disk


class Shrinking(Resizing):
    """The changes that turn a file system into new, which is smaller: superblock, descriptors, bitmaps, reserve."""

    def __init__(self, disk: Disk, new: Geometry) -> None:
        """Nothing is written. Raises NotBelievedError if blocks beyond the end are in use; errors as for reading."""
        usage = ExtUsage(disk)
        if isinstance(usage.fs.source, RecoveredSource):
            usage.fs.source.check_copies()  # now, and not when a part of them has been written where it belongs
        super().__init__(disk, usage, new)
        old = self._old
        self._gone = metadata_ranges(self._fs, range(new.groups, old.groups))
        self._kept = metadata_ranges(self._fs, range(new.groups))
        if Compat.RESIZE_INODE in new.features:
            for block, data in regrown_reserve(self._fs, new).items():
                self._change(block, data)
        free = self._plan_groups()
        self._fields |= self._counts(*free)
        numbers = {group // new.desc_per_block for group in self._descriptors} | {new.desc_blocks - 1}
        for number in sorted(numbers):
            self._change(new.descriptor_block(number), self._table(number))
        self._changes = {block: data for block, data in self._changes.items() if self._fs.read(block) != data}

    def write(self, protection: MountProtection) -> None:
        """Shrink the file system. Raises StorageError; the existing data is then intact."""
        protection.take()
        replay(self._disk, self._fs)  # if no blocks had to move, nothing was written yet
        protection.check()
        self._switch()
        self._write_copies()

    def _plan_groups(self) -> tuple[int, int]:
        """Plan the changed groups, and return how many clusters and inodes will be free."""
        new, clusters, inodes = self._new, 0, 0
        for descriptor in read_descriptors(self._fs):
            self._check_intact(descriptor)
            if descriptor.group >= new.groups:
                self._check_empty(descriptor)
                continue
            for what, block, count in locations(new, descriptor):
                if block + count > new.blocks:
                    raise self._fs.not_believed(f"group {descriptor.group}: its {what} is beyond the new end")
            inodes += descriptor.free_inodes
            clusters += self._left(descriptor) if self._changes_group(descriptor.group) else descriptor.free_blocks
        return clusters, inodes

    def _changes_group(self, group: int) -> bool:
        old, new = self._old, self._new
        is_last = group == new.groups - 1
        return is_last or old.group_head(group) != new.group_head(group) or bool(clusters_of(self._gone, old, group))

    def _left(self, descriptor: Descriptor) -> int:
        """Plan a changed group, and return how many of its clusters will be free."""
        old, new, group = self._old, self._new, descriptor.group
        bits, gone = self._clusters(descriptor), clusters_of(self._gone, old, group)
        before, after = ((1 << shape.clusters_in(shape.group_head(group))) - 1 for shape in (old, new))
        kept = clusters_of(self._kept, old, group) | after
        if bits & after & ~(before | gone):
            raise self._fs.not_believed(f"blocks at the start of group {group} are in use by no file")
        bits = bits & ~((gone | before) & ~kept) | after
        if bits >> new.group_clusters(group):
            raise self._fs.not_believed(f"blocks of group {group} after byte {new.size} are in use by no file")
        return self._plan_group(descriptor, bits)

    def _check_empty(self, descriptor: Descriptor) -> None:
        """Raise NotBelievedError unless a removed group has nothing but metadata in use."""
        if descriptor.free_inodes != self._old.inodes_per_group:
            raise self._fs.not_believed(f"group {descriptor.group} has inodes in use that are in no directory")
        if self._clusters(descriptor) & ~self._usage.metadata_clusters(descriptor.group):
            raise self._fs.not_believed(f"blocks of group {descriptor.group} are in use by no file")

    def _clusters(self, descriptor: Descriptor) -> int:
        bits = self._usage.clusters_in_use(descriptor)
        if isinstance(bits, str):
            raise self._fs.not_believed(f"group {descriptor.group}: {bits}")
        return bits
