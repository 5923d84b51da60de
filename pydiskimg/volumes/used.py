# SPDX-License-Identifier: MIT
"""A guest's disk without what its file systems say is free: what a backup must hold, and no more.

disk      |MBR| partition 1: ext4                      | partition 2: swap        |gap| partition 3: LVM     |
in use    |///|////|    |//|            |//////////////|/|                        |///|//////////////////////|
extents   |  DATA  |HOLE|DA|    HOLE    |     DATA       |          HOLE          |           DATA           |

Nothing is believed that is not confirmed (docs/adr/0024): everything outside of partitions is in use, and so is every
partition whose contents are not known or contradict themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydiskimg.disks.region import SourceRegion
from pydiskimg.errors import FileSystemError, PartitionError
from pydiskimg.extents import Extent, Kind, merged
from pydiskimg.fs.ext4.file_system import NotBelievedError
from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.fs.probe import probe
from pydiskimg.fs.signatures import stranger
from pydiskimg.fs.swap import swap_used
from pydiskimg.partitions.partition import Partition
from pydiskimg.partitions.read import gpt_sector_size, read_partition_table, refuse_hybrid
from pydiskimg.protocols import FileRange, Source, WritableBuffer, check_range
from pydiskimg.ranges import RangeList
from pydiskimg.units import KIB
from pydiskimg.volumes.find import Volume, volume_readings

_SECTOR_SIZES = (512, 4096)
_EXT = frozenset({"ext2", "ext3", "ext4"})
# Reading across what is free costs less than another call to the system.
_READ_ACROSS = 128 * KIB


class UsedSource(Source):
    """A Source that shows of another one what is in use; all else is HOLE and reads as zero.

    notes are sentences for the log: what was left out and what was not believed. Where the other source has holes or
    zeros of its own, these stay.
    """

    name: str
    size: int

    def __init__(self, source: Source, used: RangeList, notes: list[str]) -> None:
        self.name = source.name
        self.size = source.size
        self.notes = notes
        self._source = source
        self._used = used

    @property
    def used_bytes(self) -> int:
        """Bytes that are DATA."""
        return sum(extent.length for extent in self.extents() if extent.kind is Kind.DATA)

    def extents(self) -> Iterator[Extent]:
        """Yield the extents as Source.extents() does."""
        return merged(self._pieces())

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        """Fill buffer as Source.read_into() does, with zeros for what is not in use."""
        check_range(self, offset, len(buffer))
        view = memoryview(buffer)
        done = start = end = offset
        for first, last in self._used.within(offset, offset + len(view)):
            if end > start and first - end > _READ_ACROSS:
                self._source.read_into(start, view[start - offset : end - offset])
                start = end
            if start == end:
                start = first
            end = last
        if end > start:
            self._source.read_into(start, view[start - offset : end - offset])
        for first, last in self._used.within(offset, offset + len(view)):
            view[done - offset : first - offset] = bytes(first - done)
            done = last
        view[done - offset :] = bytes(offset + len(view) - done)

    def file_ranges(self, offset: int, length: int) -> list[FileRange] | None:
        """Return what Source.file_ranges() of the other source does; None when not all of it is in use."""
        if next(self._used.within(offset, offset + length), None) != (offset, offset + length):
            return None
        return self._source.file_ranges(offset, length)

    def files(self) -> Iterator[str]:
        """Yield the files of the other source."""
        return self._source.files()

    @property
    def is_compressed(self) -> bool:
        return self._source.is_compressed

    @property
    def leaves_out_zeros(self) -> bool:
        return self._source.leaves_out_zeros

    def _pieces(self) -> Iterator[Extent]:
        for extent in self._source.extents():
            position = extent.start
            for first, last in self._used.within(extent.start, extent.end):
                yield Extent(position, first - position, Kind.HOLE)
                yield Extent(first, last - first, extent.kind)
                position = last
            yield Extent(position, extent.end - position, Kind.HOLE)


def used_source(source: Source) -> UsedSource:
    """Find out what of a disk is in use and return a Source of that.

    source has the bytes of the disk itself: a block device, a raw file, or an opened image. It stays the caller's, must
    stay open, and must not change meanwhile (a snapshot, or the disk of an instance that is stopped). For a file with
    holes it is best what images.raw gives, which knows them. Raises StorageError as reading the disk does.
    """
    notes: list[str] = []
    return UsedSource(source, RangeList(_used_of_disk(source, notes)), notes)


def _used_of_disk(source: Source, notes: list[str]) -> Iterator[tuple[int, int]]:
    """Yield the ranges in use, ascending; those of neighbours may touch."""
    position = 0
    for volume in _apart(_volumes(source, notes), notes):
        start = volume.partition.start
        yield position, start
        for first, last in _used_of_volume(source, volume, notes):
            yield start + first, start + last
        position = start + volume.partition.length
    yield position, source.size


def _volumes(source: Source, notes: list[str]) -> Sequence[Volume]:
    """Return the partitions of the disk, or the disk itself where it has no table; nothing where that is unclear.

    The sector size for which the table was written is the one whose partitions hold something known.
    """
    problems: list[PartitionError] = []
    readings = list(volume_readings(source, _SECTOR_SIZES, problems, read=_read, tell=notes.append))
    known = [volumes for volumes in readings if any(volume.content for volume in volumes)]
    if len(known) == 1 and (_has_table(known[0]) or not problems):
        if not _has_table(known[0]) or not _has_another_whole(source, notes):
            return known[0]
    elif len(known) > 1:
        notes.append("the partition table makes sense with two sizes of sectors; the whole disk is copied")
    elif problems and not any(map(_has_table, readings)):
        notes.append(f"the partition table is not believed: {problems[0]}; the whole disk is copied")
    else:
        notes.append("nothing that is known was found on the disk; all of it is copied")
    return ()


def _read(source: Source, sector_size: int) -> Sequence[Partition]:
    partitions = read_partition_table(source, sector_size=sector_size, backup=False)
    refuse_hybrid(source, partitions, sector_size=sector_size)
    return partitions


def _has_table(volumes: Sequence[Volume]) -> bool:
    return volumes[0].partition.number != 0


def _has_another_whole(source: Source, notes: list[str]) -> bool:
    """True when something lies on the whole disk as well: the partitions may be what is left of an earlier use."""
    try:
        content = probe(source)
        what = content.type if content else stranger(source)
    except FileSystemError:
        what = "more than one file system"
    if what is not None:
        notes.append(f"the disk has partitions and the signature of {what} as a whole; all of it is copied")
    return what is not None


def _apart(volumes: Sequence[Volume], notes: list[str]) -> list[Volume]:
    """Return the volumes in the order of their offsets, without those that overlap: they count as in use."""
    ordered = sorted(volumes, key=lambda volume: volume.partition.start)
    overlapping: set[int] = set()
    farthest = 0
    for index in range(1, len(ordered)):
        before, partition = ordered[farthest].partition, ordered[index].partition
        end = before.start + before.length
        if partition.start < end:
            overlapping |= {farthest, index}
        if partition.start + partition.length > end:
            farthest = index
    notes.extend(f"{ordered[index]}: overlaps another partition; all of it is copied" for index in sorted(overlapping))
    return [volume for index, volume in enumerate(ordered) if index not in overlapping]


def _used_of_volume(source: Source, volume: Volume, notes: list[str]) -> Sequence[tuple[int, int]] | RangeList:
    """Return the ranges in use, from the volume's start on."""
    part = SourceRegion(source, volume.partition.start, volume.partition.length)
    everything = [(0, part.size)]
    if volume.content is None or volume.content.type not in _EXT | {"swap"}:
        notes.append(f"{volume}: all of it is copied")
        return everything
    sign = _sign_of_another_use(part)
    if sign is not None:
        notes.append(f"{volume}: {sign} as well; all of it is copied")
        return everything
    if volume.content.type in _EXT:
        try:
            return _used_of_ext(part, volume, notes)
        except NotBelievedError as error:
            notes.append(f"{volume}: its bitmaps are not believed: {error.reason}; all of it is copied")
            return everything
    used = swap_used(part)
    if isinstance(used, str):
        notes.append(f"{volume}: {used}; all of it is copied")
        return everything
    notes.append(f"{volume}: its contents are left out")
    return used


def _sign_of_another_use(part: Source) -> str | None:
    """Return a clause: what may have taken the volume over and left its superblock alone; None for nothing."""
    other = stranger(part)
    if other is not None:
        return f"looks like {other}"
    if gpt_sector_size(part) is not None:  # also one that Linux ignores, for want of a protective MBR
        return "has a GPT of its own"
    try:  # an MBR leaves a superblock at byte 1024 where it is
        has_table = any(read_partition_table(part, sector_size=sector_size) for sector_size in _SECTOR_SIZES)
    except PartitionError:
        has_table = True
    return "has a partition table of its own" if has_table else None


def _used_of_ext(part: Source, volume: Volume, notes: list[str]) -> RangeList:
    usage = ExtUsage(part)
    used = RangeList(usage.ranges())  # in full, before a byte is called free: the journal may prove damaged late
    if usage.replayed_blocks:
        notes.append(f"{volume}: is read as {usage.replayed_blocks} blocks in its journal will make it")
    if usage.doubtful_groups:
        notes.append(
            f"{volume}: {usage.doubtful_groups} of {usage.groups} groups are not believed and copied as a whole "
            f"({usage.first_doubt})"
        )
    return used
