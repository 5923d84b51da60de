# SPDX-License-Identifier: MIT
"""Change the size of an ext file system: active structures change in one transaction, the copies follow.

At every instant the disk has the file system with the old or with the new size. A file system without a journal, or
with one too small for the change, is marked as not unmounted meanwhile.
"""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.bitmaps import bitmap_of
from pydiskimg.fs.ext4.blocks import BlockWriter
from pydiskimg.fs.ext4.descriptors import Descriptor, descriptor_record, halves
from pydiskimg.fs.ext4.features import Incompat
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.groups import AddedGroups, block_bitmap_checksum
from pydiskimg.fs.ext4.journal_writer import LogWriter
from pydiskimg.fs.ext4.superblock import count_fields, superblock
from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.protocols import Disk, read_bytes
from pydiskimg.records import Value

_BLOCKS_AT_ONCE = 256


class Resizing:
    """The change of a file system from its present geometry to another one.

    size is the file system's size afterwards, in bytes; gains tells whether it differs.
    """

    def __init__(self, disk: Disk, usage: ExtUsage, new: Geometry) -> None:
        self._disk = disk
        self._usage = usage
        self._fs = fs = usage.fs
        self._old = old = fs.geometry
        self._new = new
        self.size = new.blocks * new.block_size
        self.gains = new is not old
        self._writer = BlockWriter(disk, new.block_size)
        self._groups = AddedGroups(new, old.groups, fs.checksums)
        self._first_table = 0  # the first block of descriptors whose copies may change, after the packed ones
        self._changes: dict[int, bytes] = {}
        self._descriptors: dict[int, dict[str, Value]] = {}  # the changed descriptors of old groups
        self._before = fs.superblock.fields
        self._primary_before = fs.read(self._primary)  # blocks that the log may contain and the change overwrites
        self._fields = self._before | old.features.without(Incompat.RECOVER).fields

    def _check_intact(self, descriptor: Descriptor) -> None:
        if not descriptor.is_intact:
            raise self._fs.not_believed(f"the checksum of descriptor {descriptor.group} is wrong")

    def _counts(self, free_clusters: int, free_inodes: int) -> dict[str, Value]:
        """Return the changed fields of the superblock, given what will be free."""
        new = self._new
        fields = count_fields(new, free_clusters * new.cluster_blocks, free_inodes)
        fields["s_overhead_clusters"] = 0  # the kernel computes it when it mounts
        return fields | new.features.without(Incompat.RECOVER).fields

    def _plan_group(self, descriptor: Descriptor, bits: int) -> int:
        """Plan the bitmap (bits of the clusters in use) and the descriptor of a group; return how many are free."""
        new, group = self._new, descriptor.group
        clusters = new.group_clusters(group)
        free = clusters - bits.bit_count()
        data = bitmap_of(bits, clusters, new.block_size)
        self._change(descriptor.block_bitmap, data)
        values = halves(descriptor_record(new), "bg_free_blocks_count", free)
        if self._fs.checksums.active:
            values |= block_bitmap_checksum(new, self._fs.checksums, data)
        if descriptor.flags & layout.BLOCK_UNINIT:
            values["bg_flags"] = descriptor.flags & ~layout.BLOCK_UNINIT
        self._descriptors[group] = values
        return free

    def _change(self, block: int, data: bytes) -> None:
        if block in self._changes:
            raise self._fs.not_believed(f"two parts of its metadata are at block {block}")
        self._changes[block] = data

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
        """Return the superblock's block with a changed superblock."""
        block = bytearray(self._primary_before)
        at = layout.SUPERBLOCK_OFFSET - self._primary * self._old.block_size
        block[at : at + layout.SUPERBLOCK.size] = superblock(fields, self._fs.checksums, 0)
        return bytes(block)

    def _switch(self) -> None:
        """Make the new size take effect."""
        log = LogWriter(self._disk, self._fs) if self._fs.superblock.journal_inode else None
        meanwhile = self._fields | self._new.features.with_(Incompat.RECOVER).fields
        changes = {**self._changes, self._primary: self._primary_block(meanwhile)}
        before = self._before
        if log is None or not log.fits(changes):
            self._write_superblock({**before, "s_state": int(before["s_state"]) & ~layout.VALID_FS})
            self._write_blocks(self._changes)
        else:
            # This order ensures that there is never a log that no superblock announces.
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
