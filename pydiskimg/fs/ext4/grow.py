# SPDX-License-Identifier: MIT
"""An ext2, ext3 or ext4 file system made larger on a Disk that is larger than it.

    plan (nothing is written) ── replay ── new groups, flush ── what the smaller one also has ── copies, flush

What the smaller file system also has (its superblock, its last group, the descriptors, the resize inode) goes through
its journal as one transaction: at every instant the old or the new file system is there. One without a journal is
marked as not unmounted meanwhile, and e2fsck -p makes it good after an interruption. ADR 0055.
"""

from __future__ import annotations

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.bitmaps import bitmap, runs_of
from pydiskimg.fs.ext4.blocks import BlockWriter
from pydiskimg.fs.ext4.descriptors import Descriptor, descriptor_record, halves, read_descriptors
from pydiskimg.fs.ext4.features import Compat, Incompat
from pydiskimg.fs.ext4.file_system import NotBelievedError
from pydiskimg.fs.ext4.groups import AddedGroups, block_bitmap_checksum
from pydiskimg.fs.ext4.grow_geometry import larger
from pydiskimg.fs.ext4.journal_writer import LogWriter, replay
from pydiskimg.fs.ext4.recovery import RecoveredSource
from pydiskimg.fs.ext4.resize_inode import regrown_reserve, without_reserve
from pydiskimg.fs.ext4.superblock import count_fields, superblock
from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.protocols import Disk, read_bytes
from pydiskimg.records import Value

_BLOCKS_AT_ONCE = 256


def plan_ext_growth(disk: Disk) -> ExtGrowth:
    """Return how the file system at the start of disk grows to its end; nothing is written.

    Raises FileSystemError for one that is damaged, not known in full or not grown here, DoesNotFitError for a disk that
    is too large for it, StorageError as reading does.
    """
    try:
        return ExtGrowth(disk)
    except NotBelievedError as error:
        raise FileSystemError(
            f"{disk.name}: its ext file system does not grow: {error.reason}; check it (e2fsck -f)"
        ) from error


class ExtGrowth:
    """What growing changes, worked out from the file system as it is after recovery; size is in bytes, of the larger.

    Until write() has returned no other process may write to the disk.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._usage = ExtUsage(disk)
        self._fs = fs = self._usage.fs
        if isinstance(fs.source, RecoveredSource):
            fs.source.check_copies()  # now, and not when a part of them has been written where it belongs
        self._old = old = fs.geometry
        self._new = new = larger(old, disk.size, disk.name)
        self.size = new.blocks * new.block_size
        self.gains = new is not old
        self._writer = BlockWriter(disk, new.block_size)
        self._groups = AddedGroups(new, old.groups, fs.checksums)
        self._first_table = (old.groups - 1) // old.desc_per_block
        self._changes: dict[int, bytes] = {}
        self._descriptors: dict[int, dict[str, Value]] = {}  # what changes in those of old groups
        self._before = fs.superblock.fields
        self._primary_before = fs.read(self._primary)  # which the log may hold, and growing writes over that
        self._fields = self._before | old.features.without(Incompat.RECOVER).fields
        if self.gains:
            freed = self._plan_reserve()
            self._fields |= self._counts(*self._plan_groups(freed))
            self._plan_changes()

    def write(self) -> None:
        """Make the file system larger. Raises StorageError; what was there is then as good as before."""
        if self.gains:
            replay(self._disk, self._fs)
            self._write_new_groups()
            self._switch()
            self._write_copies()
        elif self._usage.replayed_blocks:  # it was grown before, up to here
            replay(self._disk, self._fs)
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
        """Plan the resize inode, and return the block that it gives back where its reserve is used up."""
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
        """Plan the old groups that change, and return how many clusters and inodes are free then in all old groups."""
        old, new, last = self._old, self._new, self._old.groups - 1
        changes_last = new.group_size(last) != old.group_size(last) or new.group_head(last) != old.group_head(last)
        changed = ({last} if changes_last else set()) | (set() if freed is None else {old.group_of(freed)})
        clusters = inodes = 0
        for descriptor in read_descriptors(self._fs):
            if not descriptor.is_intact:
                raise self._fs.not_believed(f"the checksum of descriptor {descriptor.group} does not hold")
            inodes += descriptor.free_inodes
            clusters += self._plan_group(descriptor, freed) if descriptor.group in changed else descriptor.free_blocks
        return clusters, inodes

    def _plan_group(self, descriptor: Descriptor, freed: int | None) -> int:
        """Plan the bitmap and the descriptor of an old group, and return how many of its clusters are free then."""
        new, group = self._new, descriptor.group
        clusters, bits = new.group_clusters(group), self._clusters_in_use(descriptor, freed)
        free = clusters - bits.bit_count()
        data = bitmap(runs_of(bits), clusters, new.block_size)
        self._change(descriptor.block_bitmap, data)
        values = halves(descriptor_record(new), "bg_free_blocks_count", free)
        if self._fs.checksums.active:
            values |= block_bitmap_checksum(new, self._fs.checksums, data)
        if descriptor.flags & layout.BLOCK_UNINIT:
            values["bg_flags"] = descriptor.flags & ~layout.BLOCK_UNINIT
        self._descriptors[group] = values
        return free

    def _clusters_in_use(self, descriptor: Descriptor, freed: int | None) -> int:
        """Return the bits of an old group's clusters that are in use in the larger file system."""
        old, new, group = self._old, self._new, descriptor.group
        bits = self._usage.clusters_in_use(descriptor)
        if isinstance(bits, str):
            raise self._fs.not_believed(f"group {group}: {bits}")
        gone = 0
        if freed is not None and old.group_of(freed) == group:
            gone = 1 << (freed - old.group_start(group)) // old.cluster_blocks
            if gone & self._usage.metadata_clusters(descriptor) or not gone & bits:
                raise self._fs.not_believed(f"block {freed} of its resize inode is not in use, or by other metadata")
        before, after = ((1 << shape.clusters_in(shape.group_head(group))) - 1 for shape in (old, new))
        if before != after:  # the copy of the superblock moves away
            gone |= before & ~self._usage.table_clusters(descriptor)
        return (bits & ~gone | after) & (1 << new.group_clusters(group)) - 1

    def _counts(self, free_clusters: int, free_inodes: int) -> dict[str, Value]:
        """Return the fields of the superblock that change."""
        old, new = self._old, self._new
        if new.features != old.features and not self._fs.superblock.number("s_rev_level"):
            raise self._fs.not_believed("it has revision 0, which cannot have the descriptors of more groups")
        groups = range(old.groups, new.groups)
        free_clusters += sum(map(self._groups.free_clusters, groups))
        free_inodes += new.inodes_per_group * len(groups)
        fields = count_fields(new, free_clusters * new.cluster_blocks, free_inodes)
        fields["s_overhead_clusters"] = 0  # the kernel works it out when it mounts
        return fields | new.features.without(Incompat.RECOVER).fields

    def _plan_changes(self) -> None:
        """Collect what the smaller file system also looks at, all but its superblock."""
        numbers = {group // self._new.desc_per_block for group in self._descriptors}
        for number in sorted(numbers.union(range(self._first_table, self._new.desc_blocks))):
            block = self._new.descriptor_block(number)
            if not self._is_new(block):
                self._change(block, self._table(number))
        self._change(self._primary, b"")
        del self._changes[self._primary]

    def _change(self, block: int, data: bytes) -> None:
        if block in self._changes:
            raise self._fs.not_believed(f"two parts of its metadata lie at block {block}")
        self._changes[block] = data

    def _is_new(self, block: int) -> bool:
        return block >= self._old.blocks

    def _table(self, number: int) -> bytes:
        """Return a block of the table of descriptors."""
        old, new = self._old, self._new
        first, end = number * new.desc_per_block, min((number + 1) * new.desc_per_block, new.groups)
        kept = max(min(end, old.groups) - first, 0)
        table = bytearray()
        if kept:
            table += self._fs.read(old.descriptor_block(number))[: kept * old.desc_size]
        for group in range(first + kept, end):
            table += self._groups.descriptor(group)
        for group, values in self._descriptors.items():
            if first <= group < end:
                descriptor_record(old).put(table, values, (group - first) * old.desc_size)
        self._fs.checksums.descriptors(table, new.desc_size, first)
        return bytes(table.ljust(new.block_size, b"\0"))

    @property
    def _primary(self) -> int:
        return self._old.superblock_block

    def _primary_block(self, fields: dict[str, Value]) -> bytes:
        """Return the block of the superblock with other contents of that."""
        block = bytearray(self._primary_before)
        at = layout.SUPERBLOCK_OFFSET - self._primary * self._old.block_size
        block[at : at + layout.SUPERBLOCK.size] = superblock(fields, self._fs.checksums, 0)
        return bytes(block)

    def _switch(self) -> None:
        """Make the smaller file system the larger one."""
        log = LogWriter(self._disk, self._fs) if self._fs.superblock.journal_inode else None
        meanwhile = self._fields | self._new.features.with_(Incompat.RECOVER).fields
        changes = {**self._changes, self._primary: self._primary_block(meanwhile)}
        before = self._before
        if log is None or not log.fits(changes):
            self._write_superblock({**before, "s_state": int(before["s_state"]) & ~layout.VALID_FS})
            self._write_blocks(self._changes)
        else:
            # In this order there is never a log that no superblock announces.
            self._write_superblock(before | self._old.features.with_(Incompat.RECOVER).fields)
            log.commit(changes)
            self._write_blocks(changes)
            log.finish()
        self._write_superblock(self._fields)

    def _write_blocks(self, blocks: dict[int, bytes]) -> None:
        for block, data in blocks.items():
            self._writer.write(block, data)
        self._disk.flush()

    def _write_superblock(self, fields: dict[str, Value]) -> None:
        self._writer.write(self._primary, self._primary_block(fields))
        self._disk.flush()

    def _write_copies(self) -> None:
        """Bring the copies of superblock and descriptors up to date, in old and new groups."""
        new = self._new
        self._write_superblocks()
        for numbers in new.descriptor_pieces(_BLOCKS_AT_ONCE):
            if new.packed_desc_blocks <= numbers.start < self._first_table:
                continue
            primary, *copies = new.descriptor_copies(numbers.start)
            data = read_bytes(self._disk, primary * new.block_size, len(numbers) * new.block_size)
            for block in copies:
                self._writer.write(block, data)
        self._disk.flush()

    def _write_superblocks(self, *, first: int = 1) -> None:
        """Write the copies of the superblock from group first on."""
        for group in self._new.copies:
            if group >= first:
                data = superblock(self._fields, self._fs.checksums, group)
                self._writer.write(self._new.group_start(group), data)
