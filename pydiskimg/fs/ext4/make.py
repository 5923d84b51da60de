# SPDX-License-Identifier: MIT
"""Make an ext2, ext3 or ext4 file system on a Disk.

The order of the steps ensures that an interrupted run leaves a disk that is not taken for a file system:

    plan (nothing is written) -> wipe old signatures, flush -> groups, inodes, journal, copies of the superblock,
    flush -> the superblock, flush
"""

from __future__ import annotations

from uuid import UUID

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.directories import make_directories
from pydiskimg.fs.ext4.groups import Groups
from pydiskimg.fs.ext4.new_file_system import ExtInfo, NewExt, NewFileSystem
from pydiskimg.fs.wipe import wipe_signatures
from pydiskimg.protocols import Disk


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
    """Make an empty ext2, ext3 or ext4 file system over the whole disk, 8 MiB to 16 TiB, and return what was made.

    kind is "ext2", "ext3" or "ext4". label has at most 16 bytes in UTF-8. uuid and hash_seed are random and now
    (seconds since 1970) is the present unless given; with all three the bytes are always the same. block_size (1024,
    2048 or 4096 bytes) and bytes_per_inode depend on the size unless given, as mke2fs chooses them. reserved_percent of
    the blocks are kept for root. Features and layout are those of mke2fs with its default configuration.

    All that the disk held is lost. The superblock is written last: an interrupted run leaves nothing that looks like a
    file system. Durable on return; the disk stays the caller's.

    Raises FileSystemError or DoesNotFitError before the first write when the file system cannot be made, StorageError
    when the disk refuses.

    >>> from pydiskimg import make_ext, new_image
    >>> with new_image("data.img", 1 << 30) as disk:
    ...     made = make_ext(disk, label="data")
    >>> made.block_size, made.blocks
    (4096, 262144)
    """
    wanted = NewExt(
        disk=disk,
        kind=kind,
        label=label,
        uuid=uuid,
        block_size=block_size,
        bytes_per_inode=bytes_per_inode,
        reserved_percent=reserved_percent,
        now=now,
        hash_seed=hash_seed,
    )
    new = wanted.planned()
    return wanted.made(new, _make(new))


def _make(new: NewFileSystem) -> int:
    """Write an empty file system and return how many blocks are free."""
    geometry, placement, writer = new.geometry, new.placement, new.writer
    new.contents |= make_directories(geometry, placement, new.checksums, new.inodes)
    new.allocate(journal_first=False)
    wipe_signatures(new.disk)
    groups = Groups(geometry, placement, new.checksums, writer, tables_are_zero=new.disk.reads_as_zero)
    groups.zero_tables()
    groups.write()
    new.write_journal()
    writer.write_all(new.contents)
    writer.write(placement.flex_start(0) + placement.pattern(0).inode_tables[0], new.inodes.first_blocks())
    return new.write_superblocks(groups.metadata_blocks, used_inodes=layout.FIRST_INODE)
