# SPDX-License-Identifier: MIT
"""The last partition of a disk and the file system in it, grown to the disk's end by the kernel.

    plan ── refuse ── loop device over the new range, mount ── table, durably ── ioctl ── unmount, sync

The file system is mounted before the table is touched, so that one which the kernel refuses changes nothing. Data that
is there stays good whatever happens: a partition larger than its file system is valid, the other way round is not.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from pydiskimg.errors import DiskImageError, FileSystemError, InUseError, PartitionError, StorageError
from pydiskimg.fs.coverage import Coverage, coverage
from pydiskimg.fs.probe import FileSystemKind, probe
from pydiskimg.growth.file_system import MOUNTED_AS, grow_mounted
from pydiskimg.growth.partition import SECTOR_SIZES, other_sectors, plan_partition_growth
from pydiskimg.growth.plan import NothingToGrowError, PartitionGrowth
from pydiskimg.linux.capabilities import CAP_SYS_RESOURCE, has_capability
from pydiskimg.loop import loop_device
from pydiskimg.mount import enter_private_namespace, mounted
from pydiskimg.partition_reader import Partition
from pydiskimg.region import Region
from pydiskimg.targets.descriptor import DescriptorDisk
from pydiskimg.units import format_size

_SECTOR = 512  # of the loop device: ext4 with blocks of 1 KiB cannot be mounted from larger ones

_NOT_GROWN = {
    "swsuspend": "a hibernated system",
    "LVM2_member": "an LVM physical volume",
    "crypto_LUKS": "LUKS",
}


@dataclass(frozen=True, slots=True)
class _Volume:
    """What is to grow: a partition, or the whole disk as number 0, and the file system that covers it in part."""

    growth: PartitionGrowth
    content: FileSystemKind
    before: Coverage

    def __str__(self) -> str:
        return _place(self.growth.partition)

    @property
    def fills_it(self) -> bool:
        room = min(self.growth.length, self.before.limit)
        return not self.growth.writes and room - self.before.size < self.before.block_size

    @property
    def full(self) -> str:
        limits = f" ({self.growth.limited_by})" if self.growth.limited_by else ""
        return f"{self} and its {self.content.type} file system reach as far as they can{limits}"


def grow_last_volume(disk: DescriptorDisk) -> str:
    """Grow the partition that ends last, and the file system in it, to the end of the disk; return what was done.

    A disk without a partition table grows the file system it holds. ext2, ext3, ext4, xfs and btrfs grow; where the
    last partition holds swap, LVM, LUKS or nothing that is known, nothing is changed and the sentence says so. Needs
    root. A process that is killed leaves a disk that is good, with the old or the new table.

    Raises PartitionError for a table that is damaged or hostile, FileSystemError for a file system that is damaged or
    that the kernel does not grow, InUseError when a btrfs of the same UUID is mounted, StorageError for what the system
    refuses. The text says whether the partition was grown; what the disk holds is as good as before.
    """
    try:
        volume = _volume(disk)
    except NothingToGrowError as reason:
        return f"{disk.name}: nothing to grow: {reason}"
    _refuse_what_the_kernel_cannot(disk, volume)
    size = _grow(disk, volume)
    return f"{disk.name}: {_outcome(volume, size)}"


def _volume(disk: DescriptorDisk) -> _Volume:
    growth = _plan(disk)
    partition = growth.partition
    region = Region(disk, partition.start, partition.length, name=f"{disk.name}, {_place(partition)}")
    content = probe(region)
    if content is None:
        other = _other_sector_size(disk)
        hint = f"; {other_sectors(other, disk.sector_size)}" if other else ""
        raise NothingToGrowError(f"{_last(partition)} holds nothing that is known here{hint}")
    if content.type not in MOUNTED_AS:
        raise NothingToGrowError(f"{_last(partition)} holds {_NOT_GROWN.get(content.type, content.type)}")
    before = coverage(region, content.type)
    if before.size > partition.length:
        raise FileSystemError(
            f"{region.name}: its {content.type} file system has {before.size} bytes, the place for it "
            f"{partition.length}; the image is incomplete, nothing was grown"
        )
    volume = _Volume(growth, content, before)
    if volume.fills_it:
        raise NothingToGrowError(volume.full)
    return volume


def _plan(disk: DescriptorDisk) -> PartitionGrowth:
    try:
        growth = plan_partition_growth(disk, disk.sector_size)
    except PartitionError as error:
        other = _other_sector_size(disk)
        if other:
            raise NothingToGrowError(other_sectors(other, disk.sector_size)) from error
        raise
    if growth is not None:
        return growth
    whole = disk.size // _SECTOR * _SECTOR
    return PartitionGrowth(Partition(0, 0, whole, ""), whole, ())


def _other_sector_size(disk: DescriptorDisk) -> int | None:
    """Return the sector size, other than the disk's, with which the last partition holds something known."""
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


def _refuse_what_the_kernel_cannot(disk: DescriptorDisk, volume: _Volume) -> None:
    if volume.content.type.startswith("ext") and not has_capability(CAP_SYS_RESOURCE):
        raise StorageError(
            f"{disk.name}: growing the {volume.content.type} file system on {volume} needs root with CAP_SYS_RESOURCE, "
            "which containers mostly take away; nothing was grown",
            errno=errno.EPERM,
            filename=disk.name,
        )
    # Two devices that claim to be the same part of one btrfs: kernels before 6.7 may write to the wrong one.
    if volume.content.type == "btrfs" and os.path.exists(f"/sys/fs/btrfs/{volume.content.uuid}"):
        raise InUseError(
            f"{disk.name}: a btrfs with the UUID {volume.content.uuid} is mounted on this machine, so the one on "
            f"{volume} was not grown; unmount the other or give this one a UUID of its own (btrfstune -u)",
            errno=errno.EBUSY,
            filename=disk.name,
        )


def _grow(disk: DescriptorDisk, volume: _Volume) -> int:
    """Return the size (bytes) that the file system has in the end."""
    growth, fs_type = volume.growth, volume.content.type
    start, length = growth.partition.start, growth.length
    driver, options = MOUNTED_AS[fs_type]
    table_changed = False
    enter_private_namespace()
    disk.flush()
    try:
        with (
            loop_device(disk.fd, offset=start, length=length, sector_size=_SECTOR) as loop,
            mounted(loop.path, fs_type=driver, options=options) as target,
        ):
            growth.write(disk)
            table_changed = bool(growth.writes)
            grow_mounted(target, fs_type, min(length, volume.before.limit), name=f"{disk.name}, {volume}")
        return coverage(Region(disk, start, length), fs_type).size
    except DiskImageError as error:
        if not table_changed:
            raise
        raise FileSystemError(
            f"{disk.name}: {volume} was grown to {format_size(length)}, its {fs_type} file system of "
            f"{format_size(volume.before.size)} did not follow, which harms nothing that is in it: {error}"
        ) from error


def _outcome(volume: _Volume, size: int) -> str:
    growth, before = volume.growth, volume.before
    kind = f"the {volume.content.type} file system"
    limits = f" ({growth.limited_by})" if growth.limited_by else ""
    grown = f"from {format_size(before.size)} to {format_size(size)}"
    if growth.length > before.limit:
        grown += " (it counts no further)"
    if not growth.writes and size == before.size:  # a little is left that makes no block group
        return f"nothing to grow: {volume.full}"
    if not growth.writes:
        return f"{kind} on {volume} was grown {grown}{limits}"
    table = f"{volume} was grown from {format_size(growth.partition.length)} to {format_size(growth.length)}{limits}"
    if size == before.size:
        return f"{table}; {kind} in it cannot use the little that was added"
    return f"{table}, {kind} in it {grown}"


def _last(partition: Partition) -> str:
    return f"the last partition ({partition.number})" if partition.number else "the whole disk"


def _place(partition: Partition) -> str:
    return f"partition {partition.number}" if partition.number else "the whole disk"
