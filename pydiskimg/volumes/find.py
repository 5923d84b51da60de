# SPDX-License-Identifier: MIT
"""A disk's partitions, or the disk itself if it has no table, each with its content."""

from __future__ import annotations

from pydiskimg.errors import FileSystemError, PartitionError, StorageError
from pydiskimg.fs.probe import FileSystemKind, probe
from pydiskimg.partitions.partition import SECTOR_SIZES, Partition, has_mbr
from pydiskimg.protocols import Disk, Source, read_bytes
from pydiskimg.regions.region import SourceRegion
from pydiskimg.startup import TYPE_CHECKING, ValueObject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeAlias

TableReader: TypeAlias = "Callable[[Source, int], Sequence[Partition]]"
"""Called with a disk and the bytes of a sector; returns none if the disk has no table. Raises PartitionError."""


class Volume(ValueObject):
    """A partition, or the whole disk as number 0, and what it holds. find_volumes() returns them.

    partition is a Partition; content is a FileSystemKind, or None if nothing known was found. options are those that
    mount(8) needs, such as the subvolume of a btrfs. region(source) gives the bytes of the volume, from the source it
    was found on.

    >>> from pydiskimg import find_volumes, open_image
    >>> with open_image("disk.raw") as source:
    ...     (root,) = find_volumes(source)
    ...     print(root, root.region(source).size)
    partition 1 (ext4) 66060288
    """

    __slots__ = ("content", "options", "partition")

    def __init__(self, partition: Partition, content: FileSystemKind | None, options: str = "") -> None:
        self.partition = partition
        self.content = content
        self.options = options

    @property
    def location(self) -> str:
        return self.partition.location

    @property
    def is_ext(self) -> bool:
        """Whether it holds an ext2, ext3 or ext4."""
        return self.content is not None and self.content.is_ext

    @property
    def is_mountable(self) -> bool:
        """Whether it holds a file system."""
        return self.content is not None and self.content.is_mountable

    def __str__(self) -> str:
        return f"{self.location} ({self.content.type if self.content else 'nothing known'})"

    def region(self, source: Source) -> SourceRegion:
        """Return its content, given the disk that it is on."""
        name = f"{source.name}, {self.location}"
        return SourceRegion(source, self.partition.start, self.partition.length, name=name)


def find_volumes(source: Source, tell: Callable[[str], object] | None = None) -> list[Volume]:
    """Return the partitions of a disk with what each holds, or the disk itself where it has no partition table.

    An image may have been made for sectors of another size than this disk's, whose own is tried first: the size for
    which the partitions hold something known is taken, else the first one for which the table can be read. The
    contents may be hostile, and nothing is mounted. tell is called with a sentence about each volume whose contents
    are unclear, which then has none; by default a warning is logged. The source stays the caller's.

    Raises PartitionError when the table cannot be read for any size, and what reading raises.

    >>> from pydiskimg import find_volumes, open_image
    >>> with open_image("disk.raw") as source:
    ...     for volume in find_volumes(source):
    ...         print(volume.partition.number, volume.content.type, volume.partition.length)
    1 ext4 66060288
    """
    problems: list[PartitionError] = []
    first = None
    for found in volume_readings(source, _sector_sizes(source), problems, tell=tell):
        if any(volume.content for volume in found):
            return found
        first = first or found
    if first is None:
        raise problems[0]
    return first


def table_sector_size(source: Source) -> int:
    """Return the bytes of a sector for which find_volumes() takes the partition table, readable or not.

    What a partition contains is read only if the table is plausible with several sizes, and may be unreadable then.
    """
    sizes = _sector_sizes(source)
    tables = list(_tables(source, sizes, [], _read))
    if len(tables) > 1:
        for size, partitions in tables:
            if any(_holds_something(source, part) for part in partitions):
                return size
    return tables[0][0] if tables else sizes[0]


def _holds_something(source: Source, partition: Partition) -> bool:
    try:
        return probed(source, partition, lambda _: None).content is not None
    except StorageError:
        return False


def refuse_other_sectors(disk: Disk) -> None:
    """Raise PartitionError if the MBR of disk was made for sectors of another size than the disk has."""
    size = table_sector_size(disk)
    if size == disk.sector_size:
        return
    from pydiskimg.partitions.read import other_sectors_error, table_label  # imported here, as in _read()

    if table_label(disk) == "dos":
        raise other_sectors_error(disk, "an MBR", size)


def _sector_sizes(source: Source) -> Sequence[int]:
    own = getattr(source, "sector_size", None)  # a Disk and a block device have one
    return SECTOR_SIZES if own is None else (own, *SECTOR_SIZES)


def volume_readings(
    source: Source,
    sector_sizes: Iterable[int],
    problems: list[PartitionError],
    *,
    read: TableReader | None = None,
    tell: Callable[[str], object] | None = None,
) -> Iterator[list[Volume]]:
    """Yield for each sector size (bytes) the volumes in the table; equal lists are yielded once.

    A size with which the table cannot be read is skipped, and its error is added to problems. read reads the table;
    tell is called with a sentence on each volume whose contents are unclear; by default a warning is logged.
    """
    for _, partitions in _tables(source, sector_sizes, problems, read or _read):
        yield [probed(source, part, tell) for part in partitions]


def _tables(
    source: Source, sector_sizes: Iterable[int], problems: list[PartitionError], read: TableReader
) -> Iterator[tuple[int, Sequence[Partition]]]:
    """Yield each sector size with the partitions, or the whole disk for none; otherwise as volume_readings()."""
    seen = set()
    for sector_size in dict.fromkeys(sector_sizes):
        try:
            partitions = tuple(read(source, sector_size))
        except PartitionError as error:
            problems.append(error)
            continue
        if partitions not in seen:
            seen.add(partitions)
            yield sector_size, partitions or (Partition(0, 0, source.size, ""),)


def _read(source: Source, sector_size: int) -> Sequence[Partition]:
    if not has_mbr(read_bytes(source, 0, min(source.size, SECTOR_SIZES[0]))):
        return ()
    # imported here: many file systems are alone on their disk
    from pydiskimg.partitions.read import read_partition_table

    return read_partition_table(source, sector_size=sector_size)


def probed(source: Source, partition: Partition, tell: Callable[[str], object] | None) -> Volume:
    """Return a partition with its content; tell is as for volume_readings()."""
    volume = Volume(partition, None)
    try:
        return Volume(partition, probe(volume.region(source)))
    except FileSystemError as error:  # the wanted content may be on another partition
        if tell is None:
            import logging  # imported here: importing it takes longer than reading a small file

            logging.getLogger(__name__).warning("%s", error)
        else:
            tell(str(error))
        return volume
