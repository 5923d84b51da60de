# SPDX-License-Identifier: MIT
"""Shrink an ext2, ext3 or ext4 file system on its Disk, without a mount.

    bitmaps and inode tables ─ journal ─ files ─ attributes ─ inodes ─────── the end: one transaction ─ copies
    \\__ transactions, each of which leaves a valid file system of the old size __/

ADR 0120.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from pydiskimg.errors import DoesNotFitError, FileSystemError
from pydiskimg.fs.ext4.change.allocation import OutOfSpaceError
from pydiskimg.fs.ext4.change.quota import keep_quota
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.features import Compat
from pydiskimg.fs.ext4.file_system import NotBelievedError
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.journal_writer import replay
from pydiskimg.fs.ext4.mount_protection import MountProtection, check_not_mounted, protected
from pydiskimg.fs.ext4.recovery import RecoveredSource
from pydiskimg.fs.ext4.shrink.blocks import BlockMover
from pydiskimg.fs.ext4.shrink.journal import move_journal
from pydiskimg.fs.ext4.shrink.leaving import leaving_blocks
from pydiskimg.fs.ext4.shrink.minimum import not_shrunk, steps_to
from pydiskimg.fs.ext4.shrink.refusals import check_shrinkable
from pydiskimg.fs.ext4.shrink.renumber import Renumbering
from pydiskimg.fs.ext4.shrink.survey import survey
from pydiskimg.fs.ext4.shrink.switch import Shrinking
from pydiskimg.fs.ext4.shrink.tables import move_tables
from pydiskimg.fs.ext4.tree.files import RefusedError
from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.protocols import Disk
from pydiskimg.regions.claims import require_unclaimed
from pydiskimg.units import format_bytes


def shrink_ext(disk: Disk, size: int | None = None) -> int:
    """Shrink the ext2, ext3 or ext4 at the start of disk to at most size bytes, or to its minimum; return its new size.

    The disk keeps its size, and a file system that is not larger than size is not changed. No other process may write
    to the disk meanwhile. An interruption leaves the old or the new size, with all files, once the journal has been
    replayed by mounting or `e2fsck -p`.

    Raises DoesNotFitError (needed is the minimum in bytes) for a size below the minimum, FileSystemError for a file
    system that is damaged, in use, or has blocks that cannot be moved, and StorageError.

    >>> from pydiskimg import MemoryDisk, make_ext, shrink_ext
    >>> disk = MemoryDisk(64 << 20)
    >>> made = make_ext(disk)
    >>> shrink_ext(disk, 32 << 20)
    33554432
    """
    require_unclaimed(disk)
    try:
        return _shrink(disk, size)
    except NotBelievedError as error:
        raise not_shrunk(disk.name, error) from error
    except RefusedError as error:
        raise FileSystemError(f"{disk.name}: its ext file system cannot be shrunk: a file of it {error}") from error


def _shrink(disk: Disk, size: int | None) -> int:
    usage = ExtUsage(disk)
    check_shrinkable(usage.fs)
    check_not_mounted(usage.fs)
    shapes = steps_to(usage, size or 0)
    if size is not None and shapes[-1].size > size:
        needed = shapes[-1].size
        raise DoesNotFitError(
            f"{disk.name}: its ext file system cannot shrink to {format_bytes(size)}: it needs at least "
            f"{format_bytes(needed)}; nothing was changed",
            needed=needed,
            available=size,
        )
    with protected(disk, usage.fs) as protection:
        return _in_steps(disk, shapes, size, protection)


def _in_steps(disk: Disk, shapes: list[Geometry], size: int | None, protection: MountProtection) -> int:
    for old, new in pairwise(shapes):
        try:
            _Emptying(disk, old, new, protection).run()
        except OutOfSpaceError as error:
            if size is None:  # the reachable size depends on where free blocks are
                _replay(disk, protection)
                return old.size
            raise DoesNotFitError(
                f"{disk.name}: its ext file system could not shrink to {format_bytes(size)}: while its files were "
                f"moved, {error}; it has {format_bytes(old.size)} and all its files; try a larger size",
                needed=old.size,
                available=size,
            ) from error
        Shrinking(disk, new).write(protection)
    if len(shapes) == 1:
        _replay(disk, protection)
    return shapes[-1].size


def _replay(disk: Disk, protection: MountProtection) -> None:
    """Replay a journal that needs recovery: after an interruption the new size may be in the journal alone."""
    fs = ExtUsage(disk).fs
    if isinstance(fs.source, RecoveredSource):
        fs.source.check_copies()
        protection.take()
        replay(disk, fs)


class _Emptying:
    """Moves everything away from blocks that must not be in use when old becomes new."""

    def __init__(self, disk: Disk, old: Geometry, new: Geometry, protection: MountProtection) -> None:
        self._disk = disk
        self._protection = protection
        self._new = new
        self._leaving = leaving_blocks(old, new)
        self._transaction = self._begin()

    def run(self) -> None:
        """Move everything. A refusal on the way keeps the moves up to then, in a clean file system."""
        try:
            self._move()
        except (OutOfSpaceError, FileSystemError, RefusedError):
            self._transaction.close()
            raise
        self._transaction.close()

    def _move(self) -> None:
        fs, most = self._transaction.fs, self._transaction.room if self._transaction.has_journal else None
        found = survey(fs, self._transaction.groups, self._new, most)  # first, because it may refuse
        if move_tables(self._transaction, self._new):
            self._transaction.close()
            self._transaction = self._begin()
        self._move_protection()
        if fs.superblock.journal_inode in found.files:
            self._transaction.close()
            move_journal(self._disk, self._begin, self._leaving)
            self._transaction = self._begin()
        files = [number for number in found.files if number != fs.superblock.journal_inode]
        self._in_turn(files, lambda mover, number: mover.file(number))
        shared = found.attribute_blocks
        self._in_turn(list(shared), lambda mover, block: mover.attributes(block, shared[block]))
        if Compat.RESIZE_INODE in fs.geometry.features:
            BlockMover(self._transaction, self._leaving).reserve()
        self._transaction.commit()
        if found.leaving:
            Renumbering(self._transaction, self._new, found.leaving).run()

    def _move_protection(self) -> None:
        """Move the block of multiple mount protection, which is marked as taken; the old block keeps that mark."""
        if self._protection.block and self._leaving.touch(self._protection.block):
            self._protection.take()
            block = BlockMover(self._transaction, self._leaving).mount_protection(self._protection.block)
            self._transaction.commit()
            self._protection.block = block

    def _in_turn(self, numbers: Sequence[int], move: Callable[[BlockMover, int], None]) -> None:
        """Move the blocks one after the other, many in one commit; if space is short, each in a commit of its own."""
        committed = 0
        for index, number in enumerate(numbers):
            try:
                move(BlockMover(self._transaction, self._leaving), number)
            except OutOfSpaceError:  # freed blocks can be allocated only after a commit
                self._transaction.close()
                self._transaction = self._begin()
                for again in numbers[committed : index + 1]:
                    move(BlockMover(self._transaction, self._leaving), again)
                    self._transaction.commit()
                committed = index + 1
            if self._transaction.size >= self._transaction.room:
                self._transaction.commit()
                committed = index + 1
        self._transaction.commit()

    def _begin(self, *, is_ours: bool = False) -> Transaction:
        transaction = Transaction(self._disk, check=check_shrinkable, protection=self._protection, is_ours=is_ours)
        transaction.blocks.end = self._leaving.end
        transaction.blocks.kept_free = self._leaving.head
        transaction.inodes.groups = self._new.groups
        keep_quota(transaction)
        return transaction
