# SPDX-License-Identifier: MIT
"""Shrink the last partition of a disk and its ext file system, and report where the disk can be cut.

    file system, by us ── partition table, durably ── backup of a GPT or end of an extended partition ── the file is cut

Each step leaves a valid disk: a partition may be larger than its file system, and a disk larger than its table.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydiskimg.errors import FileSystemError, PartitionError
from pydiskimg.fs.ext4.layout import SUPERBLOCK, SUPERBLOCK_OFFSET
from pydiskimg.fs.ext4.shrink import shrink_ext
from pydiskimg.fs.ext4.superblock import parse_superblock
from pydiskimg.fs.probe import probe
from pydiskimg.partitions.change import ChangedTable, move_end, open_table
from pydiskimg.partitions.growth_plan import ALIGNMENT
from pydiskimg.partitions.layout import EXTENDED
from pydiskimg.partitions.partition import Partition, has_mbr
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.protocols import Disk, Source, read_bytes
from pydiskimg.regions.region import Region
from pydiskimg.units import format_bytes

_SECTOR = 512


@dataclass(frozen=True, slots=True)
class ShrunkVolume:
    """The result: a partition (0: the disk itself) and its file system; end is the size of the disk that is needed.

    All are bytes. has_shrunk tells whether any of it became smaller.
    """

    partition: int
    length_before: int
    length: int
    fs_type: str
    fs_size_before: int
    fs_size: int
    end: int

    @property
    def has_shrunk(self) -> bool:
        return self.fs_size < self.fs_size_before or self.length < self.length_before


def shrink_last_volume(disk: Disk, size: int | None = None) -> ShrunkVolume:
    """Shrink the ext file system in the partition that ends last, to at most size bytes or its minimum.

    A file system that is not larger than size keeps its own. The partition, if there is one, becomes as small as whole
    MiB allow. The disk keeps its size: after cut_table() the bytes from end on can be cut off. Raises FileSystemError
    if the last partition contains something else or shrink_ext() refuses, PartitionError for a damaged table,
    DoesNotFitError for a size below the minimum, StorageError.
    """
    table = _table(disk)
    last = _last(disk, table)
    region = Region(disk, last.start, last.length, name=f"{disk.name}, {last.location}")
    content = probe(region)
    if content is None or not content.is_ext:
        found = content.type if content else "nothing that is known"
        raise FileSystemError(f"{region.name}: contains {found}; only ext2, ext3 and ext4 can be shrunk")
    before = _ext_size(region)
    fs_size = shrink_ext(region, size)
    disk.flush()
    if table is None:
        end = -(-fs_size // _SECTOR) * _SECTOR
        return ShrunkVolume(0, last.length, end, content.type, before, fs_size, end)
    length = min(last.length, -(-(last.start + fs_size) // ALIGNMENT) * ALIGNMENT - last.start)
    if length < last.length:
        table.set_length(last.number, length)
    return ShrunkVolume(last.number, last.length, length, content.type, before, fs_size, table.end_of_disk)


def _ext_size(source: Source) -> int:
    """Return the size in the superblock (bytes), which is checked later; 0 if it has none."""
    superblock = parse_superblock(read_bytes(source, SUPERBLOCK_OFFSET, SUPERBLOCK.size))
    return superblock.blocks * (superblock.block_size or 0) if superblock else 0


def cut_table(disk: Disk, end: int) -> None:
    """Adapt the partition table of disk to a disk of only end bytes, durably: it can be cut there then.

    Raises PartitionError for a table that is damaged or has partitions beyond end.
    """
    if _table(disk) is not None:
        move_end(disk, end)


def _table(disk: Disk) -> ChangedTable | None:
    """Return the table of the disk; None if a file system fills the disk without one."""
    if not has_mbr(read_bytes(disk, 0, min(disk.size, _SECTOR))):
        return None
    return open_table(disk) if read_partition_table(disk, sector_size=disk.sector_size) else None


def _last(disk: Disk, table: ChangedTable | None) -> Partition:
    if table is None:
        return Partition(0, 0, disk.size, "")
    found = [part for part in table.partitions if not _is_extended(part)]
    if not found:
        raise PartitionError(f"{disk.name}: has no partition to shrink")
    return max(found, key=lambda part: part.start + part.length)


def _is_extended(part: Partition) -> bool:
    return part.type.startswith("0x") and int(part.type, 16) in EXTENDED


def text_of(shrunk: ShrunkVolume) -> str:
    """Return the result as a sentence."""
    where = f"partition {shrunk.partition}" if shrunk.partition else "the disk"
    nothing, already = ("", "") if shrunk.has_shrunk else ("nothing to shrink: ", "already ")
    return (
        f"{nothing}the {shrunk.fs_type} file system on {where} {already}has {format_bytes(shrunk.fs_size)}; the disk "
        f"needs {format_bytes(shrunk.end)}"
    )
