# SPDX-License-Identifier: MIT
"""An ext2, ext3 or ext4 file system made larger on a Disk that is larger than it.

    plan (nothing is written) ── replay ── new groups, flush ── what the smaller one also has ── copies, flush

What the smaller file system also has (its superblock, its last group, the descriptors, the resize inode) goes through
its journal as one transaction: at every instant the old or the new file system is there. One without a journal is
marked as not unmounted meanwhile, and e2fsck -p makes it good after an interruption. ADR 0055.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.descriptors import Descriptor, read_descriptors, seal
from pydiskimg.fs.ext4.errors import NotBelievedError
from pydiskimg.fs.ext4.features import Compat, Incompat
from pydiskimg.fs.ext4.grow_geometry import larger
from pydiskimg.fs.ext4.grow_groups import NewGroups
from pydiskimg.fs.ext4.grow_reserve import regrown_reserve
from pydiskimg.fs.ext4.journal_writer import LogWriter
from pydiskimg.fs.ext4.recovery import RecoveredSource
from pydiskimg.fs.ext4.superblock import superblock
from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.protocols import Disk, read_bytes

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

    Until write() has returned nobody else may write to the disk.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        usage = ExtUsage(disk)
        self._usage, self._source = usage, usage.source
        if isinstance(self._source, RecoveredSource):
            self._source.check_copies()  # now, and not when a part of them has been put in its place
        self._old = old = usage.volume
        self._new = new = larger(old, disk.size)
        self.size = new.blocks * new.block_size
        self.gains = new is not old
        self._checksums = Checksums(old.checksum_seed, active=old.has_checksums)
        self._groups = NewGroups(new, old.groups, self._checksums)
        self._first_table = (old.groups - 1) // old.desc_per_block
        self._changes: dict[int, bytes] = {}
        raw = read_bytes(self._source, layout.SUPERBLOCK_OFFSET, layout.SUPERBLOCK.size)
        self._fields = layout.SUPERBLOCK.unpack(raw)
        if not self.gains:
            self._fields["s_feature_incompat"] = int(new.incompat & ~Incompat.RECOVER)
            return
        self._before = dict(self._fields)
        free_blocks, free_inodes, last = self._counted()
        self._last_descriptor = self._last_group(last)
        self._fields |= self._counts(free_blocks, free_inodes)
        self._plan_changes()

    def write(self) -> None:
        """Make the file system larger. Raises StorageError; what was there is then as good as before."""
        if self.gains:
            self._replay()
            self._write_new_groups()
            self._switch()
            self._write_copies()
        elif self._usage.replayed_blocks:  # it was grown before, up to here
            self._replay()
            self._write_superblock(self._fields)
            self._write_copies()

    def _write_new_groups(self) -> None:
        self._groups.write(self._disk)
        for number in range(self._first_table, self._new.desc_blocks):
            if self._is_new(self._new.descriptor_block(number)):
                self._write_block(self._new.descriptor_block(number), self._table(number))
        # Without its first copy the larger file system would not be believed (beginning.py) until the last step.
        self._write_superblocks(first=self._old.groups)
        self._disk.flush()

    def _counted(self) -> tuple[int, int, Descriptor]:
        """Return how many blocks and inodes are free, and the last descriptor."""
        blocks = inodes = 0
        last = None
        for last in read_descriptors(self._source, self._old):
            if not last.is_intact:
                raise NotBelievedError(self._old.name, f"the checksum of descriptor {last.group} does not hold")
            blocks += last.free_blocks
            inodes += last.free_inodes
        assert last is not None
        return blocks, inodes, last

    def _last_group(self, descriptor: Descriptor) -> dict[str, int | bytes]:
        """Plan the bitmap of the group that was last, and return what changes in its descriptor."""
        old, new, group = self._old, self._new, descriptor.group
        added = new.group_end(group) - old.group_end(group)
        if not added:
            return {}
        used = self._usage.clusters_in_use(descriptor)
        if isinstance(used, str):
            raise NotBelievedError(old.name, f"group {group}: {used}")
        size = new.group_end(group) - new.group_start(group)
        bits = used | (1 << 8 * new.block_size) - (1 << size)
        data = bits.to_bytes(new.block_size, "little")
        self._change(descriptor.block_bitmap, data)
        values = self._groups.halves("bg_free_blocks_count", descriptor.free_blocks + added, 16)
        if self._checksums.active:
            checksum = self._checksums.bitmap(data[: new.blocks_per_group // 8])
            values |= self._groups.halves("bg_block_bitmap_csum", checksum, 16)
        if descriptor.flags & layout.BLOCK_UNINIT:
            values["bg_flags"] = descriptor.flags & ~layout.BLOCK_UNINIT
        return values

    def _counts(self, free_blocks: int, free_inodes: int) -> dict[str, int | bytes]:
        """Return the fields of the superblock that change."""
        old, new = self._old, self._new
        number = {name: value for name, value in self._fields.items() if isinstance(value, int)}
        if new.incompat != old.incompat and not number["s_rev_level"]:
            raise NotBelievedError(old.name, "it has revision 0, which cannot have the descriptors of more groups")
        groups = range(old.groups, new.groups)
        added = new.group_end(old.groups - 1) - old.blocks
        free_blocks += added + sum(map(self._groups.free_blocks, groups))
        reserved = number["s_r_blocks_count_lo"] | self._high(number["s_r_blocks_count_hi"]) << 32
        fields: dict[str, int | bytes] = {
            "s_inodes_count": new.inodes_per_group * new.groups,
            "s_free_inodes_count": free_inodes + new.inodes_per_group * len(groups),
            "s_reserved_gdt_blocks": new.reserved_gdt_blocks,
            "s_first_meta_bg": new.first_meta_bg,
            "s_feature_incompat": int(new.incompat & ~Incompat.RECOVER),
            "s_overhead_clusters": 0,  # the kernel works it out when it mounts
        }
        for name, value in (
            ("s_blocks_count", new.blocks),
            ("s_r_blocks_count", min(reserved, old.blocks) * new.blocks // old.blocks),
            ("s_free_blocks_count", free_blocks),
        ):
            fields |= {f"{name}_lo": value & 0xFFFFFFFF, f"{name}_hi": value >> 32}
        return fields

    def _high(self, half: int) -> int:
        return half if Incompat.BIT64 in self._old.incompat else 0

    def _plan_changes(self) -> None:
        """Collect what the smaller file system also looks at, all but its superblock."""
        for number in range(self._first_table, self._new.desc_blocks):
            block = self._new.descriptor_block(number)
            if not self._is_new(block):
                self._change(block, self._table(number))
        if Compat.RESIZE_INODE in self._old.compat:
            for block, data in regrown_reserve(self._source, self._old, self._new, self._checksums).items():
                self._change(block, data)
        self._change(self._primary, b"")
        del self._changes[self._primary]

    def _change(self, block: int, data: bytes) -> None:
        if block in self._changes:
            raise NotBelievedError(self._old.name, f"two parts of its metadata lie at block {block}")
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
            table += read_bytes(self._source, old.descriptor_block(number) * old.block_size, kept * old.desc_size)
        for group in range(first + kept, end):
            table += self._groups.descriptor(group)
        if first <= old.groups - 1 < end:
            self._groups.record.put(table, self._last_descriptor, (old.groups - 1 - first) * old.desc_size)
        seal(table, new, first)
        return bytes(table.ljust(new.block_size, b"\0"))

    @property
    def _primary(self) -> int:
        """The block with the superblock."""
        return layout.SUPERBLOCK_OFFSET // self._old.block_size

    def _primary_block(self, fields: dict[str, int | bytes]) -> bytes:
        """Return that block with other contents of the superblock."""
        size = self._old.block_size
        block = bytearray(read_bytes(self._source, self._primary * size, size))
        at = layout.SUPERBLOCK_OFFSET - self._primary * size
        block[at : at + layout.SUPERBLOCK.size] = superblock(fields, self._checksums, 0)
        return bytes(block)

    def _replay(self) -> None:
        """Put in its place what the journal holds, as recovery does."""
        if isinstance(self._source, RecoveredSource):
            for block, data in self._source.replayed():
                self._write_block(block, data)
            self._disk.flush()
            LogWriter(self._disk, self._old).finish(self._source.next_sequence + 1 & 0xFFFFFFFF)

    def _switch(self) -> None:
        """Make the smaller file system the larger one."""
        log = LogWriter(self._disk, self._old) if self._old.journal_inode else None
        incompat = int(self._fields["s_feature_incompat"])
        meanwhile = {**self._fields, "s_feature_incompat": incompat | Incompat.RECOVER}
        changes = {**self._changes, self._primary: self._primary_block(meanwhile)}
        before = self._before
        if log is None or not log.fits(changes):
            self._write_superblock({**before, "s_state": int(before["s_state"]) & ~layout.VALID_FS})
            self._write_blocks(self._changes)
        else:
            # In this order there is never a log that nobody is told of.
            self._write_superblock(
                {**before, "s_feature_incompat": int(before["s_feature_incompat"]) | Incompat.RECOVER}
            )
            log.commit(changes)
            self._write_blocks(changes)
            log.finish()
        self._write_superblock(self._fields)

    def _write_blocks(self, blocks: dict[int, bytes]) -> None:
        for block, data in blocks.items():
            self._write_block(block, data)
        self._disk.flush()

    def _write_block(self, block: int, data: bytes) -> None:
        self._disk.write(block * self._old.block_size, data)

    def _write_superblock(self, fields: dict[str, int | bytes]) -> None:
        self._write_block(self._primary, self._primary_block(fields))
        self._disk.flush()

    def _write_copies(self) -> None:
        """Bring the copies of superblock and descriptors up to date, in old and new groups."""
        new = self._new
        self._write_superblocks()
        whole = new.first_meta_bg if Incompat.META_BG in new.incompat else new.desc_blocks
        for first in range(0, whole, _BLOCKS_AT_ONCE):
            count = min(_BLOCKS_AT_ONCE, whole - first)
            data = read_bytes(self._disk, new.descriptor_block(first) * new.block_size, count * new.block_size)
            for group in self._copies():
                if Incompat.META_BG not in new.incompat or group < whole * new.desc_per_block:
                    self._write_block(new.group_start(group) + 1 + first, data)
        for number in range(max(whole, self._first_table), new.desc_blocks):
            data = read_bytes(self._disk, new.descriptor_block(number) * new.block_size, new.block_size)
            first_group = number * new.desc_per_block
            for group in (first_group + 1, first_group + new.desc_per_block - 1):
                if group < new.groups:
                    self._write_block(new.group_start(group) + new.has_superblock(group), data)
        self._disk.flush()

    def _write_superblocks(self, *, first: int = 1) -> None:
        """Write the copies of the superblock from group first on."""
        for group in self._copies():
            if group >= first:
                self._write_block(self._new.group_start(group), superblock(self._fields, self._checksums, group))

    def _copies(self) -> Iterator[int]:
        return (group for group in range(1, self._new.groups) if self._new.has_superblock(group))
