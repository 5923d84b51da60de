# SPDX-License-Identifier: MIT
"""A guest's disk without the space that its file systems have free: the minimum that a backup must contain.

disk      |MBR| partition 1: ext4                      | partition 2: swap        |gap| partition 3: LVM     |
in use    |///|////|    |//|            |//////////////|/|                        |///|//////////////////////|
extents   |  DATA  |HOLE|DA|    HOLE    |     DATA       |          HOLE          |           DATA           |

Nothing is believed without confirmation (docs/adr/0024): all space outside of partitions is in use, and so is every
partition whose contents are not known or contradict themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydiskimg.errors import FileSystemError, PartitionError
from pydiskimg.extents import Extent, Kind, merged
from pydiskimg.fs.ext4.file_system import NotBelievedError
from pydiskimg.fs.ext4.usage import ExtUsage
from pydiskimg.fs.probe import probe
from pydiskimg.fs.signatures import stranger
from pydiskimg.fs.swap import swap_used
from pydiskimg.partitions.partition import Partition
from pydiskimg.partitions.read import gpt_sector_size, read_partition_table, refuse_hybrid
from pydiskimg.protocols import FileRange, Source, WritableBuffer, check_buffer
from pydiskimg.ranges import RangeList
from pydiskimg.regions.region import SourceRegion
from pydiskimg.units import KIB
from pydiskimg.volumes.find import Volume, volume_readings

_SECTOR_SIZES = (512, 4096)
# Reading across small free ranges costs less than another system call.
_READ_ACROSS = 128 * KIB


class UsedSource(Source):
    """A Source that leaves out what the file systems of another one do not use. used_source() returns it.

    Unused bytes are HOLE and read as zero; holes and zeros of the other source stay what they are. notes are sentences
    about what was left out and what was not believed. used_bytes is the number of bytes that are DATA.

    >>> from pydiskimg import open_image, used_source
    >>> with open_image("disk.raw") as source:
    ...     used = used_source(source)
    ...     len(used.notes), 0 < used.used_bytes < source.size
    (0, True)
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
        """The number of bytes that are DATA."""
        return sum(extent.length for extent in self.extents() if extent.kind is Kind.DATA)

    def extents(self) -> Iterator[Extent]:
        """Yield the extents as Source.extents() does."""
        return merged(self._pieces())

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        """Fill buffer as Source.read_into() does, with zeros for bytes that are not in use."""
        check_buffer(self, offset, buffer)
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
        """Return Source.file_ranges() of the other source; None if a part of the range is not in use."""
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
    """Return a Source of what is in use on a disk.

    Free blocks of ext2, ext3 and ext4 and the contents of swap are left out. source has the bytes of the disk: a block
    device, a raw file or an opened image. It stays the caller's, must remain open, and must not change meanwhile.
    Everything outside of partitions counts as in use, and so does a partition whose contents are not known or
    contradict themselves (ADR 0024); the notes of the result name it. Open a file with holes by open_image(), which
    knows them. Raises StorageError and InvalidImageError as reading does.

    >>> from pydiskimg import copy, new_image, open_image, used_source
    >>> with open_image("disk.raw") as source, new_image("small.qcow2", source.size, format="qcow2") as disk:
    ...     copied = copy(used_source(source), disk, unit=disk.unit)
    >>> copied.total
    67108864
    """
    notes: list[str] = []
    return UsedSource(source, RangeList(_used_of_disk(source, notes)), notes)


def _used_of_disk(source: Source, notes: list[str]) -> Iterator[tuple[int, int]]:
    """Yield the used ranges, ascending; neighbours may touch."""
    position = 0
    for volume in _apart(_volumes(source, notes), notes):
        start = volume.partition.start
        yield position, start
        for first, last in _used_of_volume(source, volume, notes):
            yield start + first, start + last
        position = start + volume.partition.length
    yield position, source.size


def _volumes(source: Source, notes: list[str]) -> Sequence[Volume]:
    """Return the partitions of the disk, or the disk itself if it has no table; nothing if that is unclear.

    The right sector size is the one with which the partitions have known contents.
    """
    problems: list[PartitionError] = []
    readings = list(volume_readings(source, _SECTOR_SIZES, problems, read=_read, tell=notes.append))
    known = [volumes for volumes in readings if any(volume.content for volume in volumes)]
    if len(known) == 1 and (_has_table(known[0]) or not problems):
        if not _has_table(known[0]) or not _has_another_whole(source, notes):
            return known[0]
    elif len(known) > 1:
        notes.append("the partition table is plausible with two sector sizes; the whole disk counts as in use")
    elif problems and not any(map(_has_table, readings)):
        notes.append(f"the partition table is not believed: {problems[0]}; the whole disk counts as in use")
    else:
        notes.append("the disk contains nothing known; all of it counts as in use")
    return ()


def _read(source: Source, sector_size: int) -> Sequence[Partition]:
    partitions = read_partition_table(source, sector_size=sector_size, backup=False)
    refuse_hybrid(source, partitions, sector_size=sector_size)
    return partitions


def _has_table(volumes: Sequence[Volume]) -> bool:
    return volumes[0].partition.number != 0


def _has_another_whole(source: Source, notes: list[str]) -> bool:
    """True when there is a signature of the whole disk as well: the partitions may be left over from an earlier use."""
    try:
        content = probe(source)
        what = content.type if content else stranger(source)
    except FileSystemError:
        what = "more than one file system"
    if what is not None:
        notes.append(f"the disk has partitions and the signature of {what} as a whole; all of it counts as in use")
    return what is not None


def _apart(volumes: Sequence[Volume], notes: list[str]) -> list[Volume]:
    """Return the volumes in the order of their offsets, without overlapping ones, which count as in use."""
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
    notes.extend(
        f"{ordered[index]}: overlaps another partition; all of it counts as in use" for index in sorted(overlapping)
    )
    return [volume for index, volume in enumerate(ordered) if index not in overlapping]


def _used_of_volume(source: Source, volume: Volume, notes: list[str]) -> Sequence[tuple[int, int]] | RangeList:
    """Return the used ranges, counted from the volume's start."""
    part = SourceRegion(source, volume.partition.start, volume.partition.length)
    everything = [(0, part.size)]
    if volume.content is None or not (volume.is_ext or volume.content.type == "swap"):
        notes.append(f"{volume}: all of it counts as in use")
        return everything
    sign = _sign_of_another_use(part)
    if sign is not None:
        notes.append(f"{volume}: {sign} as well; all of it counts as in use")
        return everything
    if volume.is_ext:
        try:
            return _used_of_ext(part, volume, notes)
        except NotBelievedError as error:
            notes.append(f"{volume}: its bitmaps are not believed: {error.reason}; all of it counts as in use")
            return everything
    used = swap_used(part)
    if isinstance(used, str):
        notes.append(f"{volume}: {used}; all of it counts as in use")
        return everything
    notes.append(f"{volume}: its contents are left out")
    return used


def _sign_of_another_use(part: Source) -> str | None:
    """Return a clause: what may have taken the volume over and left its superblock intact; None if nothing."""
    other = stranger(part)
    if other is not None:
        return f"looks like {other}"
    if gpt_sector_size(part) is not None:  # also a GPT that Linux ignores because the protective MBR is missing
        return "has a GPT of its own"
    try:  # an MBR does not overwrite a superblock at byte 1024
        has_table = any(read_partition_table(part, sector_size=sector_size) for sector_size in _SECTOR_SIZES)
    except PartitionError:
        has_table = True
    return "has a partition table of its own" if has_table else None


def _used_of_ext(part: Source, volume: Volume, notes: list[str]) -> RangeList:
    usage = ExtUsage(part)
    # read completely before any byte counts as free: damage of the journal may show late
    used = RangeList(usage.ranges())
    if usage.replayed_blocks:
        notes.append(f"{volume}: is read with {usage.replayed_blocks} blocks of its journal replayed")
    if usage.doubtful_groups:
        notes.append(
            f"{volume}: {usage.doubtful_groups} of {usage.groups} groups are not believed and copied as a whole "
            f"({usage.first_doubt})"
        )
    return used
