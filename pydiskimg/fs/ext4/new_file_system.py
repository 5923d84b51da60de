# SPDX-License-Identifier: MIT
"""The parts of every new file system besides its files: journal, resize inode, and the superblocks, which come last.

All blocks are allocated first, so that a file system that cannot be made is refused before the first write.
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
from pydiskimg.fs.ext4.features import Compat, Incompat
from pydiskimg.fs.ext4.file_map import FileMap
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.inodes import NewInodes
from pydiskimg.fs.ext4.journal import allocate_journal, new_journal
from pydiskimg.fs.ext4.placement import Placement
from pydiskimg.fs.ext4.plan import journal_blocks, plan_geometry
from pydiskimg.fs.ext4.resize_inode import make_resize_inode
from pydiskimg.fs.ext4.superblock import Identity, new_fields, superblock
from pydiskimg.fs.label import encoded_label
from pydiskimg.protocols import Buffer, Disk
from pydiskimg.units import format_size

_log = logging.getLogger(__name__)

_TIME_LIMIT = (1 << 34) - (1 << 31)  # the largest time in an inode, in the year 2446


def new_identity(where: str, uuid: UUID | None, hash_seed: UUID | None, label: str, now: int | None) -> Identity:
    """Return an identity; None is replaced by random numbers and the present time; where names the disk.

    Raises FileSystemError for a label that is too long, or a time that the file system cannot hold.
    """
    seconds = int(time.time()) if now is None else now
    encoded = encoded_label(label, where)
    if not 0 <= seconds < _TIME_LIMIT:
        raise FileSystemError(
            f"{where}: the time {seconds} is outside of 0 to {_TIME_LIMIT - 1} seconds since 1970; nothing was written"
        )
    return Identity(uuid or uuid4(), hash_seed or uuid4(), encoded, seconds)


class NewFileSystem:
    """A file system while it is made: its parts, and the blocks that are written after the groups.

    inodes has the first eleven. Call allocate() before the first write, write_journal() when the disk may be written,
    write_superblocks() last.
    """

    def __init__(self, disk: Disk, geometry: Geometry, identity: Identity) -> None:
        self.disk = disk
        self.geometry = geometry
        self.identity = identity
        self.checksums = Checksums(geometry.features, identity.uuid.bytes)
        self.placement = Placement(geometry, disk.name)
        self.inodes = NewInodes(geometry, self.checksums, identity.now)
        self.writer = BlockWriter(disk, geometry.block_size)
        self.contents: dict[int, Buffer] = {}
        self.journal_blocks = journal_blocks(geometry)
        self._journal: FileMap | None = None

    def allocate(self, *, journal_first: bool) -> None:
        """Allocate the resize inode's block and the journal: in the middle, or before all files."""
        geometry = self.geometry
        if Compat.RESIZE_INODE in geometry.features:
            self.contents |= make_resize_inode(geometry, self.placement, self.inodes)
        if self.journal_blocks:
            self._journal = allocate_journal(geometry, self.placement, self.journal_blocks, first=journal_first)
            size = self.journal_blocks * geometry.block_size
            mode = layout.REGULAR_FILE | 0o600
            self.inodes.set_mapped(layout.JOURNAL_INODE, mode, 1, size, self._journal)

    def write_journal(self) -> None:
        """Zero the journal (blocks of an old log could be replayed), then write its map and superblock."""
        journal = self._journal
        if journal is None:
            return
        for start, end in journal.runs:
            self.writer.zero(start, end - start)
        for block, content in journal.nodes.items():
            if journal.is_extents:
                self.checksums.extent_block(self.checksums.for_inode(layout.JOURNAL_INODE), content)
            self.writer.write(block, content)
        first = new_journal(self.geometry.block_size, self.journal_blocks, self.identity.uuid.bytes)
        self.writer.write(journal.first_block, first)

    def write_superblocks(self, metadata_blocks: int, *, used_inodes: int) -> int:
        """Write the copies of the superblock, flush, write the superblock, flush; return how many blocks are free.

        metadata_blocks are those of the groups themselves.
        """
        geometry = self.geometry
        in_use = metadata_blocks + self.placement.allocated_blocks()
        free_blocks = geometry.blocks - geometry.first_data_block - in_use
        fields = new_fields(
            geometry,
            self.identity,
            free_blocks=free_blocks,
            free_inodes=geometry.inodes - used_inodes,
            overhead=geometry.first_data_block + metadata_blocks + self.journal_blocks,
            journal=(self._journal.i_block, self.journal_blocks) if self._journal else None,
        )
        if Incompat.FLEX_BG in geometry.features:
            fields["s_kbytes_written"] = self.writer.bytes_written // 1024 + 1
        for group in geometry.copies:
            self.writer.write(geometry.group_start(group), superblock(fields, self.checksums, group))
        self.disk.flush()
        self._write_primary(superblock(fields, self.checksums, 0))
        self.disk.flush()
        return free_blocks

    def _write_primary(self, data: bytes) -> None:
        """Write the superblock at byte 1024; if blocks are larger, write the whole block."""
        if self.geometry.first_data_block:
            self.writer.write(1, data)
        else:
            front = bytes(layout.SUPERBLOCK_OFFSET) + data
            self.writer.write(0, front.ljust(self.geometry.block_size, b"\0"))


@dataclass(frozen=True, slots=True)
class ExtInfo:
    """A description of a file system that was made.

    size is what it covers and bytes_written what was written (without zeroed areas), in bytes; block_size is bytes, and
    blocks, free_blocks, inodes and journal_blocks are counts. uuid is a uuid.UUID.

    >>> from pydiskimg import MemoryDisk, make_ext
    >>> made = make_ext(MemoryDisk(16 << 20))
    >>> made.kind, made.block_size * made.blocks == made.size
    ('ext4', True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExt:
    """A file system to be made over a whole disk, for populate_joined(); the fields are the parameters of make_ext().

    >>> from pydiskimg import MemoryDisk, NewExt
    >>> NewExt(disk=MemoryDisk(64 << 20), label="boot").kind
    'ext4'
    """

    disk: Disk
    kind: str = "ext4"
    label: str = ""
    uuid: UUID | None = None
    block_size: int | None = None
    bytes_per_inode: int | None = None
    reserved_percent: float = 5.0
    now: int | None = None
    hash_seed: UUID | None = None

    def planned(self) -> NewFileSystem:
        """Return its initial state, with nothing written. Raises FileSystemError or DoesNotFitError."""
        identity = new_identity(self.disk.name, self.uuid, self.hash_seed, self.label, self.now)
        geometry = plan_geometry(
            self.disk.size,
            kind=self.kind,
            where=self.disk.name,
            sector_size=self.disk.sector_size,
            block_size=self.block_size,
            bytes_per_inode=self.bytes_per_inode,
            reserved_percent=self.reserved_percent,
        )
        return NewFileSystem(self.disk, geometry, identity)

    def allocated(self, *, journal_first: bool) -> NewFileSystem:
        """Return it with everything except files allocated, and nothing written. Raises as planned() does."""
        new = self.planned()
        new.allocate(journal_first=journal_first)
        return new

    def made(self, new: NewFileSystem, free_blocks: int) -> ExtInfo:
        """Return, and log, the description of the file system that planned() began."""
        geometry, uuid = new.geometry, new.identity.uuid
        _log.info("%s: made %s of %s, UUID %s", self.disk.name, self.kind, format_size(geometry.size), uuid)
        return ExtInfo(
            self.kind,
            uuid,
            self.label,
            geometry.size,
            geometry.block_size,
            geometry.blocks,
            free_blocks,
            geometry.inodes,
            new.journal_blocks,
            new.writer.bytes_written,
        )
