# SPDX-License-Identifier: MIT
"""Make an ext2, ext3 or ext4 file system on a Disk.

In this order, so that an interrupted run leaves a disk that nobody takes for a file system:

    plan (nothing is written) -> wipe old signatures, flush -> groups, inodes, journal, copies of the superblock,
    flush -> the superblock, flush
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from uuid import UUID, uuid4

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.blocks import BlockWriter
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.directories import make_directories
from pydiskimg.fs.ext4.features import Compat, Incompat
from pydiskimg.fs.ext4.file_map import FileMap
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.groups import Groups
from pydiskimg.fs.ext4.inodes import NewInodes
from pydiskimg.fs.ext4.journal import allocate_journal, new_journal
from pydiskimg.fs.ext4.placement import Placement
from pydiskimg.fs.ext4.plan import journal_blocks, plan_geometry
from pydiskimg.fs.ext4.resize_inode import make_resize_inode
from pydiskimg.fs.ext4.superblock import Identity, new_fields, superblock
from pydiskimg.fs.label import encoded_label
from pydiskimg.fs.wipe import wipe_signatures
from pydiskimg.protocols import Disk
from pydiskimg.units import format_size

_log = logging.getLogger(__name__)

_TIME_LIMIT = (1 << 34) - (1 << 31)  # what an inode's times reach, in the year 2446


@dataclass(frozen=True, slots=True)
class ExtInfo:
    """A file system that was made.

    size is what it covers and bytes_written what it cost (without zeroed areas), in bytes; the other numbers are
    counts of blocks or inodes.
    """

    kind: str
    uuid: UUID
    label: str
    size: int
    block_size: int
    blocks: int
    free_blocks: int
    inodes: int
    journal_blocks: int
    bytes_written: int


def make_ext(  # noqa: PLR0913 - each option is independent, optional and named
    disk: Disk,
    *,
    kind: str = "ext4",
    label: str = "",
    uuid: UUID | None = None,
    block_size: int | None = None,
    bytes_per_inode: int | None = None,
    reserved_percent: float = 5.0,
    now: int | None = None,
    hash_seed: UUID | None = None,
) -> ExtInfo:
    """Make a file system over the whole disk, from 8 MiB to 16 TiB, and return what was made.

    kind is ext2, ext3 or ext4; label has at most 16 bytes of UTF-8; uuid and hash_seed are random and now
    (seconds since 1970) is the present unless given. block_size (1024, 2048 or 4096) and bytes_per_inode depend on
    the size unless given, as mke2fs chooses them. reserved_percent of the blocks are kept for the super user.
    Whatever the disk held is lost from the first write on. Raises FileSystemError or DoesNotFitError before that
    when the file system cannot be made as asked, StorageError when the disk refuses.
    """
    identity = Identity(
        uuid or uuid4(), hash_seed or uuid4(), encoded_label(label, disk.name), _checked_time(now, disk.name)
    )
    geometry = plan_geometry(
        disk.size,
        kind=kind,
        where=disk.name,
        sector_size=disk.sector_size,
        block_size=block_size,
        bytes_per_inode=bytes_per_inode,
        reserved_percent=reserved_percent,
    )
    maker = _Maker(disk, geometry, identity)
    free_blocks = maker.make()
    size = geometry.blocks * geometry.block_size
    _log.info("%s: made %s of %s, UUID %s", disk.name, kind, format_size(size), identity.uuid)
    return ExtInfo(
        kind,
        identity.uuid,
        label,
        size,
        geometry.block_size,
        geometry.blocks,
        free_blocks,
        geometry.inodes,
        journal_blocks(geometry),
        maker.bytes_written,
    )


def _checked_time(now: int | None, where: str) -> int:
    seconds = int(time.time()) if now is None else now
    if not 0 <= seconds < _TIME_LIMIT:
        raise FileSystemError(
            f"{where}: the time {seconds} is outside of 0 to {_TIME_LIMIT - 1} seconds since 1970; nothing was written"
        )
    return seconds


class _Maker:
    """One run: first everything is allocated, so that what cannot be made is refused before the first write."""

    def __init__(self, disk: Disk, geometry: Geometry, identity: Identity) -> None:
        self._disk = disk
        self._geometry = geometry
        self._identity = identity
        self._checksums = Checksums(geometry.features, identity.uuid.bytes)
        self._placement = Placement(geometry, disk.name)
        self._inodes = NewInodes(geometry, self._checksums, identity.now)
        self._writer = BlockWriter(disk, geometry.block_size)
        self._contents: dict[int, bytes | bytearray] = {}
        self._journal: FileMap | None = None
        self._journal_blocks = journal_blocks(geometry)

    @property
    def bytes_written(self) -> int:
        return self._writer.bytes_written

    def make(self) -> int:
        """Write the file system and return how many blocks are free."""
        self._allocate()
        wipe_signatures(self._disk)
        groups = Groups(
            self._geometry,
            self._placement,
            self._checksums,
            self._writer,
            tables_are_zero=self._disk.reads_as_zero,
        )
        groups.write()
        self._write_journal()
        self._writer.write_all(self._contents)
        pattern = self._placement.pattern(0)
        start = self._placement.flex_start(0)
        self._writer.write(start + pattern.inode_tables[0], self._inodes.first_blocks())
        return self._write_superblocks(groups.metadata_blocks)

    def _allocate(self) -> None:
        geometry = self._geometry
        self._contents |= make_directories(geometry, self._placement, self._checksums, self._inodes)
        if Compat.RESIZE_INODE in geometry.features:
            self._contents |= make_resize_inode(geometry, self._placement, self._inodes)
        if self._journal_blocks:
            self._journal = allocate_journal(geometry, self._placement, self._journal_blocks)
            size = self._journal_blocks * geometry.block_size
            mode = layout.REGULAR_FILE | 0o600
            self._inodes.set_mapped(layout.JOURNAL_INODE, mode, 1, size, self._journal)

    def _write_journal(self) -> None:
        """Zero the journal (old blocks of another log could be replayed), then write its map and superblock."""
        journal = self._journal
        if journal is None:
            return
        for start, end in journal.runs:
            self._writer.zero(start, end - start)
        for block, content in journal.nodes.items():
            if journal.is_extents:
                self._checksums.extent_block(self._checksums.for_inode(layout.JOURNAL_INODE), content)
            self._writer.write(block, content)
        first = new_journal(self._geometry.block_size, self._journal_blocks, self._identity.uuid.bytes)
        self._writer.write(journal.first_block, first)

    def _write_superblocks(self, metadata_blocks: int) -> int:
        geometry = self._geometry
        in_use = metadata_blocks + self._placement.allocated_blocks()
        free_blocks = geometry.blocks - geometry.first_data_block - in_use
        fields = new_fields(
            geometry,
            self._identity,
            free_blocks=free_blocks,
            overhead=geometry.first_data_block + metadata_blocks + self._journal_blocks,
            journal=(self._journal.i_block, self._journal_blocks) if self._journal else None,
        )
        if Incompat.FLEX_BG in geometry.features:
            fields["s_kbytes_written"] = self.bytes_written // 1024 + 1
        for group in geometry.copies:
            self._writer.write(geometry.group_start(group), superblock(fields, self._checksums, group))
        self._disk.flush()
        self._write_primary(superblock(fields, self._checksums, 0))
        self._disk.flush()
        return free_blocks

    def _write_primary(self, data: bytes) -> None:
        """Write the superblock at byte 1024, within one whole block where it is not a block by itself."""
        if self._geometry.first_data_block:
            self._writer.write(1, data)
        else:
            front = bytes(layout.SUPERBLOCK_OFFSET) + data
            self._writer.write(0, front.ljust(self._geometry.block_size, b"\0"))
