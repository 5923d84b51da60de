# SPDX-License-Identifier: MIT
"""Grow the last partition of a disk and the file system in it to the disk's end.

    ext2, ext3, ext4:  plan both ──────────────────────────────────────── table, durably ── file system, by us
    xfs, btrfs:        plan ── loop device over the new range, mount ──── table, durably ── ioctl ── unmount, sync

All refusals come before the table is changed. Existing data stays intact in any case: a partition larger than its file
system is valid, the reverse is not.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import cast

from pydiskimg.errors import DiskImageError, FileSystemError, InUseError, PartitionError
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.probe import FileSystemKind, probe
from pydiskimg.fs.probe.size import Coverage, coverage
from pydiskimg.fs.signatures import stranger
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import enter_private_namespace, mounted
from pydiskimg.partitions.grow import plan_partition_growth
from pydiskimg.partitions.growth_plan import NothingToGrowError, PartitionGrowth
from pydiskimg.partitions.partition import SECTOR_SIZES, Partition
from pydiskimg.partitions.read import other_sectors
from pydiskimg.protocols import Disk, ShownDisk
from pydiskimg.regions.region import Region
from pydiskimg.units import format_size
from pydiskimg.volumes.grow_mounted import MOUNTED_AS, grow_mounted

_SECTOR = 512  # of the loop device: ext4 with blocks of 1 KiB cannot be mounted with larger ones

_NOT_GROWN = {
    "swsuspend": "a hibernated system",
    "LVM2_member": "an LVM physical volume",
    "crypto_LUKS": "LUKS",
}


class _PartitionOnlyError(DiskImageError):
    """The partition was grown and its file system was not; the text says why."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A partition (the whole disk is number 0) that can grow, and the file system that covers a part of it."""

    growth: PartitionGrowth
    content: FileSystemKind
    before: Coverage

    def __str__(self) -> str:
        return self.growth.partition.location

    @property
    def fills_it(self) -> bool:
        room = min(self.growth.length, self.before.limit)
        return not self.growth.writes and room - self.before.size < self.before.block_size

    @property
    def full(self) -> str:
        limits = f" ({self.growth.limited_by})" if self.growth.limited_by else ""
        return f"{self} and its {self.content.type} file system already have their full size{limits}"


@dataclass(frozen=True, slots=True)
class VolumeGrowth:
    """What grow_last_volume() did; lengths and sizes are bytes.

    partition is the number, 0 for the disk itself; length_before and length are those of the partition, fs_size_before
    and fs_size those of its file system of fs_type, which is None if nothing that grows was found. has_grown tells
    whether anything changed. text (and str()) says it in a sentence.

    >>> from pydiskimg import grow_last_volume, open_image_disk
    >>> with open_image_disk("disk.qcow2") as disk:
    ...     growth = grow_last_volume(disk)
    >>> growth.has_grown
    False
    """

    text: str
    partition: int = 0
    length_before: int = 0
    length: int = 0
    fs_type: str | None = None
    fs_size_before: int = 0
    fs_size: int = 0

    @property
    def has_grown(self) -> bool:
        return (self.length_before, self.fs_size_before) != (self.length, self.fs_size)

    def __str__(self) -> str:
        return self.text


def grow_last_volume(disk: Disk, *, may_mount: bool = True) -> VolumeGrowth:
    """Grow the partition that ends last, and the file system in it, to the end of the disk; return the result.

    A disk without a partition table grows the file system that it holds. ext2, ext3 and ext4 grow on any Disk. xfs and
    btrfs are mounted for it, which needs root and a block device or raw file; may_mount=False leaves them alone. Where
    the last partition holds swap, LVM, LUKS or nothing known, nothing changes and the result says so.

    Refusals come before the first write. A process that is killed leaves a good disk with the old or the
    new table; an ext2 then needs `e2fsck -p`. The disk stays the caller's.

    Raises PartitionError for a table that is damaged or hostile, FileSystemError for a file system that is damaged or
    cannot grow, DoesNotFitError for an ext that cannot become so large, InUseError when a btrfs of the same UUID is
    mounted, and StorageError. The text says whether the partition has grown.

    >>> from pydiskimg import grow_last_volume, open_image_disk, resize_image
    >>> resize_image("disk.qcow2", lambda size: 2 * size)
    134217728
    >>> with open_image_disk("disk.qcow2") as disk:
    ...     growth = grow_last_volume(disk)
    >>> growth.partition, growth.length_before, growth.length
    (1, 66060288, 133169152)
    """
    try:
        volume = _volume(disk)
        if not may_mount and not volume.content.is_ext:
            is_raw = disk.format in ("", "raw")
            why = "mounting is not allowed" if is_raw else f"it cannot be mounted in a {disk.format} image"
            raise NothingToGrowError(
                f"{volume} contains {volume.content.type}, which can grow only while it is mounted, and {why}"
            )
    except NothingToGrowError as reason:
        return VolumeGrowth(f"{disk.name}: nothing to grow: {reason}")
    try:
        size = _grow_ext(disk, volume) if volume.content.is_ext else _grow_mounted(cast("ShownDisk", disk), volume)
    except _PartitionOnlyError as error:
        raise FileSystemError(
            f"{disk.name}: {volume} was grown to {format_size(volume.growth.length)}, its {volume.content.type} file "
            f"system of {format_size(volume.before.size)} was not, and is intact: {error}"
        ) from error
    growth = volume.growth
    return VolumeGrowth(
        f"{disk.name}: {_outcome(volume, size)}",
        growth.partition.number,
        growth.partition.length,
        growth.length,
        volume.content.type,
        volume.before.size,
        size,
    )


def _volume(disk: Disk) -> _Candidate:
    growth = _plan(disk)
    partition = growth.partition
    region = Region(disk, partition.start, partition.length, name=f"{disk.name}, {partition.location}")
    content = probe(region)
    if content is None:
        other = _other_sector_size(disk)
        hint = f"; the disk has {_other_table(other, disk)}" if other else ""
        raise NothingToGrowError(f"{_last(partition)} contains nothing that is known here{hint}")
    if not content.is_ext and content.type not in MOUNTED_AS:
        raise NothingToGrowError(f"{_last(partition)} contains {_NOT_GROWN.get(content.type, content.type)}")
    owner = stranger(region)
    if owner is not None:  # the file system may be left over from an earlier use
        raise NothingToGrowError(f"{_last(partition)} contains {content.type}, and looks like {owner} as well")
    before = coverage(region, content.type)
    if before.size > partition.length:
        raise FileSystemError(
            f"{region.name}: its {content.type} file system has {before.size} bytes, its partition {partition.length}; "
            "the image is incomplete, nothing was grown"
        )
    volume = _Candidate(growth, content, before)
    if volume.fills_it:
        raise NothingToGrowError(volume.full)
    return volume


def _plan(disk: Disk) -> PartitionGrowth:
    try:
        growth = plan_partition_growth(disk, disk.sector_size)
    except PartitionError as error:
        other = _other_sector_size(disk)
        if other:
            raise NothingToGrowError(f"the disk has {_other_table(other, disk)}") from error
        raise
    if growth is not None:
        return growth
    whole = disk.size // _SECTOR * _SECTOR
    return PartitionGrowth(Partition(0, 0, whole, ""), whole, ())


def _other_table(sector_size: int, disk: Disk) -> str:
    return other_sectors("a partition table", sector_size, disk.sector_size)


def _other_sector_size(disk: Disk) -> int | None:
    """Return the sector size, other than the disk's, with which the last partition has known content."""
    for size in SECTOR_SIZES:
        if size == disk.sector_size:
            continue
        try:
            growth = plan_partition_growth(disk, size)
            if growth and probe(Region(disk, growth.partition.start, growth.partition.length)):
                return size
        except DiskImageError:
            continue
    return None


def _grow_ext(disk: Disk, volume: _Candidate) -> int:
    """Return the new size (bytes) of the file system."""
    growth = volume.growth
    region = Region(disk, growth.partition.start, growth.length, name=f"{disk.name}, {volume}")
    planned = plan_ext_growth(region)
    with _after_table(disk, growth):
        planned.write()
    return planned.size


@contextmanager
def _after_table(disk: Disk, growth: PartitionGrowth) -> Iterator[None]:
    """Write the table, if it changes; later failures become a _PartitionOnlyError."""
    growth.write(disk)
    try:
        yield
    except DiskImageError as error:
        if not growth.writes:
            raise
        raise _PartitionOnlyError(str(error)) from error


def _refuse_twins(disk: ShownDisk, volume: _Candidate) -> None:
    # There would be two devices that claim to be the same part of one btrfs: kernels before 6.7 may write to the wrong
    # one.
    if volume.content.type == "btrfs" and os.path.exists(f"/sys/fs/btrfs/{volume.content.uuid}"):
        raise InUseError(
            f"{disk.name}: a btrfs with the UUID {volume.content.uuid} is mounted on this machine, so the one on "
            f"{volume} was not grown; unmount the other or give this one a UUID of its own (btrfstune -u)",
            errno=errno.EBUSY,
            filename=disk.name,
        )


def _grow_mounted(disk: ShownDisk, volume: _Candidate) -> int:
    """Return the new size (bytes) of the file system."""
    _refuse_twins(disk, volume)
    growth, fs_type = volume.growth, volume.content.type
    start, length = growth.partition.start, growth.length
    driver, options = MOUNTED_AS[fs_type]
    name = f"{disk.name}, {volume}"
    enter_private_namespace()
    disk.flush()
    with ExitStack() as stack:
        loop = stack.enter_context(loop_device(disk.fd, offset=start, length=length, sector_size=_SECTOR))
        target = stack.enter_context(mounted(loop.path, fs_type=driver, options=options, name=name))
        with _after_table(disk, growth):
            grow_mounted(target, fs_type, min(length, volume.before.limit), name=name)
            stack.close()
            return coverage(Region(disk, start, length), fs_type).size


def _outcome(volume: _Candidate, size: int) -> str:
    growth, before = volume.growth, volume.before
    kind = f"the {volume.content.type} file system"
    limits = f" ({growth.limited_by})" if growth.limited_by else ""
    grown = f"from {format_size(before.size)} to {format_size(size)}"
    if growth.length > before.limit:
        grown += " (it counts no further)"
    if not growth.writes and size == before.size:  # a remainder too small for a block group
        return f"nothing to grow: {volume.full}"
    if not growth.writes:
        return f"{kind} on {volume} was grown {grown}{limits}"
    table = f"{volume} was grown from {format_size(growth.partition.length)} to {format_size(growth.length)}{limits}"
    if size == before.size:
        return f"{table}; {kind} in it cannot use the small space that was added"
    return f"{table}, {kind} in it {grown}"


def _last(partition: Partition) -> str:
    return f"the last partition ({partition.number})" if partition.number else "the whole disk"
