# SPDX-License-Identifier: MIT
"""Changes that take effect together: kept in memory over the disk, where every reader sees them, then committed.

    new blocks ─ flush ─> superblock: needs recovery ─> log ─> changed blocks in place ─> log empty   (journal_writer)

Newly allocated blocks are not referred to before the commit, and are written directly; only blocks that the disk
already refers to are logged. Without a journal the superblock says "not clean" meanwhile (ADR 0122).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.blocks import BlockWriter
from pydiskimg.fs.ext4.change.allocation import ChangedBlocks, ChangedInodes
from pydiskimg.fs.ext4.change.groups import ChangedGroups, GroupState
from pydiskimg.fs.ext4.change.refusals import check_changeable
from pydiskimg.fs.ext4.change.usage_changes import Charge, UsageChanges
from pydiskimg.fs.ext4.descriptors import read_descriptors
from pydiskimg.fs.ext4.features import Feature, Features, Incompat
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.journal import Journal
from pydiskimg.fs.ext4.journal_writer import LogWriter, replay
from pydiskimg.fs.ext4.mount_protection import MountProtection
from pydiskimg.fs.ext4.recovery import OverlaidSource, RecoveredSource
from pydiskimg.fs.ext4.superblock import count_fields, superblock
from pydiskimg.fs.ext4.tree.files import RefusedError
from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.protocols import Buffer, Disk, Source
from pydiskimg.records import Value

_ROOM = 4096  # blocks


class _ChangedSource(OverlaidSource):
    """A file system's source with the blocks in their changed state."""

    def __init__(self, source: Source, block_size: int) -> None:
        super().__init__(source, block_size)
        self.blocks: dict[int, bytes] = {}

    def rest_on(self, source: Source) -> None:
        """Read unchanged blocks from another source."""
        self._source = source

    def _content(self, block: int) -> bytes | None:
        return self.blocks.get(block)


class WriteOrder(IntEnum):
    """When a block is written if there is no journal: each group durably before later ones.

    Names that replace another file's are written after that file's inode was freed; removed names, and the inodes of
    new files, come last.
    """

    OTHERS = 0
    NEW_NAMES = 1
    LAST = 2


@dataclass(frozen=True, slots=True)
class Savepoint:
    """The state to return to when a change fails in the middle."""

    blocks: dict[int, bytes]
    states: dict[int, GroupState]
    orders: dict[int, WriteOrder]
    fields: dict[str, Any]
    charges: dict[int, tuple[Charge | None, Charge | None]]


class Transaction:
    """The changes to a file system on a disk that has no other writer.

    fs reads changed blocks in their new state. blocks and inodes allocate, groups has the free ones. commit() makes the
    changes take effect, and may be called repeatedly; close() ends that. known_inodes caches some inodes in their
    present state, inode_tables the first blocks of some groups' tables.
    """

    def __init__(
        self,
        disk: Disk,
        *,
        now: int | None = None,
        check: Callable[[FileSystem], None] = check_changeable,
        protection: MountProtection | None = None,
        is_ours: bool = False,
    ) -> None:
        """Nothing is written yet. now is the time of all commits, in nanoseconds since 1970; None: the present.

        check raises FileSystemError for file systems that cannot be changed. The caller releases protection; None: it
        is held from the first write to close(). is_ours: the caller has marked the file system as not clean.

        Raises NotBelievedError if the file system is not sound, and as check and reading do.
        """
        self._disk = disk
        self._now = now
        usage = ExtUsage(disk, is_ours=is_ours)
        self._before = before = usage.fs
        check(before)
        if isinstance(before.source, RecoveredSource):
            before.source.check_copies()  # now, and not when a part of them has been written where it belongs
        self._protection = protection or MountProtection(disk, before)
        self._is_protection_ours = protection is None
        self._source = _ChangedSource(before.source, before.geometry.block_size)
        self.fs: FileSystem = before.replaced(source=self._source)
        usage.fs = self.fs
        self._writer = BlockWriter(disk, before.geometry.block_size)
        self.groups = ChangedGroups(usage)
        self.blocks = ChangedBlocks(self.fs, self.groups)
        self.inodes = ChangedInodes(self.fs, self.groups)
        self.usage = UsageChanges(self.fs)
        self.before_commit: Callable[[Transaction], None] = lambda _: None
        """Adds the changes that follow from others to a commit: the quota files."""
        self._free_blocks, self._free_inodes = self._counted()
        self._log: LogWriter | None = None
        self._is_replayed = self._is_broken = False
        self._fields: dict[str, Any] = dict(self.fs.superblock.fields)
        self._fields_in_force = dict(self._fields)
        self._needs_recovery = self.fs.needs_recovery
        self._orders: dict[int, WriteOrder] = {}
        self.known_inodes: dict[int, StoredInode] = {}
        self.inode_tables: dict[int, int] = {}
        self._capacity: int | None = None

    def read(self, block: int) -> bytes:
        """Return a block with all changes so far."""
        changed = self._source.blocks.get(block)
        return self.fs.read(block) if changed is None else changed

    def put(self, block: int, data: Buffer, *, order: WriteOrder = WriteOrder.OTHERS) -> None:
        """Change a whole block; order is when it is written, and the latest order of several counts."""
        self._source.blocks[block] = bytes(data)
        self._orders[block] = max(order, self._orders.get(block, order))

    def patch(self, block: int, offset: int, data: Buffer, *, order: WriteOrder = WriteOrder.OTHERS) -> None:
        """Change a part of a block."""
        old = self.read(block)
        self.put(block, old[:offset] + bytes(data) + old[offset + len(data) :], order=order)

    def write_new(self, block: int, data: Buffer) -> None:
        """Write contents to blocks that were allocated since the last commit, at once: for the contents of files."""
        self._check_usable()
        self._replay()  # otherwise replaying the log would overwrite these blocks
        self._writer.write(block, data)

    def free(self, start: int, end: int) -> None:
        """Free blocks, and discard pending writes to them."""
        self.blocks.free(start, end)
        for block in range(start, end) if end - start < len(self._source.blocks) else list(self._source.blocks):
            if start <= block < end:
                self._source.blocks.pop(block, None)

    def savepoint(self) -> Savepoint:
        """Return the state for restore(). Raises FileSystemError after a commit that failed."""
        self._check_usable()
        return Savepoint(
            dict(self._source.blocks),
            dict(self.groups.states),
            dict(self._orders),
            dict(self._fields),
            self.usage.copy(),
        )

    def restore(self, savepoint: Savepoint) -> None:
        """Undo all changes since that state."""
        self.known_inodes.clear()
        self._source.blocks = dict(savepoint.blocks)
        self.groups.restore(dict(savepoint.states))
        self._orders = dict(savepoint.orders)
        self._fields = dict(savepoint.fields)
        self.usage.restore(savepoint.charges)

    @property
    def has_journal(self) -> bool:
        return bool(self.fs.superblock.journal_inode)

    @property
    def size(self) -> int:
        """The number of changed blocks, which are in memory until the commit, including bitmaps and descriptors."""
        return len(self._source.blocks) + 3 * self.groups.changed

    @property
    def free_clusters(self) -> int:
        """Clusters that were free after the last commit."""
        return self._free_blocks

    @property
    def room(self) -> int:
        """The number of blocks that a commit may change to fit the journal; without one, the limit for memory."""
        if self._capacity is None:
            self._capacity = _ROOM
            if self.has_journal:
                journal = Journal(self._before)
                self._capacity = min(_ROOM, (journal.end - journal.first) * 3 // 4)
        return max(self._capacity - 2 * len(self.groups.states), 1)

    def commit(self) -> None:
        """Make the changes take effect, durably.

        Raises StorageError, after which no other commit is possible; FileSystemError, with nothing changed, if they are
        too many for the journal.
        """
        self._check_usable()
        if not self._source.blocks and self.groups.counts() == (0, 0):
            return
        self._replay()
        self._protection.check()
        self.before_commit(self)
        first = set()
        for block, offset, data in list(self.groups.blocks()):
            self.patch(block, offset, data)
            first.add(block)
        fields, counts = dict(self._fields), self._update_superblock()
        fresh = {block: data for block, data in self._source.blocks.items() if self.blocks.is_fresh(block)}
        changed = {block: data for block, data in self._source.blocks.items() if block not in fresh}
        if self._log is not None and not self._log.fits(changed):
            self._fields = fields
            raise FileSystemError(
                f"{self.fs.name}: a change of {len(changed)} blocks is larger than its journal; make it in parts, or "
                "give the file system a larger journal (tune2fs -J size=)"
            )
        self._is_broken = True
        self._writer.write_all(fresh)
        self._disk.flush()
        if self._log is not None:
            self._switch(self._log, changed)
        else:
            self._write_in_order(changed, first)
        self._source.blocks.clear()
        self._orders.clear()
        self.usage.restore({})
        self.groups.committed()
        self._fields_in_force = dict(self._fields)
        self._free_blocks, self._free_inodes = counts
        self._is_broken = False

    def close(self) -> None:
        """Mark the file system as clean in the superblock, durably. Changes that were not committed are discarded."""
        self._source.blocks.clear()
        if self._needs_recovery and self._is_replayed and not self._is_broken:
            self._needs_recovery = False
            self._write_superblock(self._fields_in_force)
        if self._is_protection_ours and not self._is_broken:
            self._protection.release()

    def _check_usable(self) -> None:
        """Refuse to write after a commit that failed: the state of the disk is not known any more."""
        if self._is_broken:
            raise FileSystemError(f"{self.fs.name}: an earlier write failed; check the file system (e2fsck -p)")

    def _counted(self) -> tuple[int, int]:
        blocks = inodes = 0
        for descriptor in read_descriptors(self.fs):
            if not descriptor.is_intact:
                raise self.fs.not_believed(f"the checksum of descriptor {descriptor.group} is wrong")
            blocks += descriptor.free_blocks
            inodes += descriptor.free_inodes
        return blocks, inodes

    def _replay(self) -> None:
        """Replay the journal, once; from now on its log belongs to this transaction."""
        if not self._is_replayed:
            self._protection.take()
            replay(self._disk, self._before)
            self._source.rest_on(self._disk)
            self._is_replayed = True
            if self.has_journal:
                self._log = LogWriter(self._disk, self.fs)

    def _update_superblock(self) -> tuple[int, int]:
        """Put the counts of free clusters and inodes into the superblock and return them.

        The kernel lets them become outdated there, so they are summed over all descriptors.
        """
        blocks, inodes = (
            count + change
            for count, change in zip((self._free_blocks, self._free_inodes), self.groups.counts(), strict=True)
        )
        counts = count_fields(self.fs.geometry, blocks * self.fs.geometry.cluster_blocks, inodes)
        names = ("s_free_blocks_count_lo", "s_free_blocks_count_hi", "s_free_inodes_count")
        now = (time.time_ns() if self._now is None else self._now) // 1_000_000_000
        self._fields |= {name: counts[name] for name in names}
        self._fields |= {"s_wtime": now & 0xFFFFFFFF, "s_wtime_hi": now >> 32}
        self.put(self._primary, self._superblock_block(self._fields, is_dirty=True))
        return blocks, inodes

    def require(self, feature: Feature, error: int) -> None:
        """Set a feature in the superblock with the next commit.

        Raises RefusedError with the errno if the file system cannot have features.
        """
        if not self.fs.superblock.number("s_rev_level"):
            raise RefusedError(f"would need the feature {feature.name}, which revision 0 cannot have", error)
        self._fields |= Features(*(int(self._fields[name]) for name in Features().fields)).with_(feature).fields

    def set_superblock(self, values: dict[str, Value]) -> None:
        """Change the superblock with the next commit."""
        self._fields |= values

    @property
    def _primary(self) -> int:
        return self.fs.geometry.superblock_block

    def _superblock_block(self, fields: dict[str, Any], *, is_dirty: bool) -> bytes:
        """Return the block of the superblock; is_dirty: it requests recovery, or without a journal is marked as not
        clean.
        """
        if self._log is not None:
            features = self.fs.superblock.features.without(Incompat.RECOVER)
            features = features.with_(Incompat.RECOVER) if is_dirty else features
            fields = fields | {"s_feature_incompat": features.incompat}
        elif is_dirty:
            fields = fields | {"s_state": int(fields["s_state"]) & ~layout.VALID_FS}
        block = bytearray(self.fs.read(self._primary))
        at = layout.SUPERBLOCK_OFFSET - self._primary * self.fs.geometry.block_size
        block[at : at + layout.SUPERBLOCK.size] = superblock(fields, self.fs.checksums, 0)
        return bytes(block)

    def _write_superblock(self, fields: dict[str, Any], *, is_dirty: bool = False) -> None:
        self._writer.write(self._primary, self._superblock_block(fields, is_dirty=is_dirty))
        self._disk.flush()

    def _switch(self, log: LogWriter, changed: dict[int, bytes]) -> None:
        if not self._needs_recovery:
            # This order ensures that there is never a log that the superblock does not announce.
            self._needs_recovery = True
            self._write_superblock(self._fields_in_force, is_dirty=True)
        log.commit(changed)
        self._writer.write_all(changed)
        self._disk.flush()
        log.finish()

    def _write_in_order(self, changed: dict[int, bytes], first: set[int]) -> None:
        """Write bitmaps and descriptors, and then the rest in its order, each part durably before the next.

        e2fsck -p does not correct an entry whose inode is marked as never used by its descriptor.
        """
        del changed[self._primary]
        self._write_superblock(self._fields_in_force, is_dirty=True)
        parts = [{block: data for block, data in changed.items() if block in first}]
        parts += [
            {block: data for block, data in changed.items() if block not in first and self._orders[block] == order}
            for order in WriteOrder
        ]
        for part in filter(None, parts):
            self._writer.write_all(part)
            self._disk.flush()
        self._write_superblock(self._fields)
