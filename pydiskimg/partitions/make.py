# SPDX-License-Identifier: MIT
"""Make partition tables with libparted: MBR, or GPT if the disk is too large for an MBR. The only importer of parted.

libparted writes the table to an anonymous sparse file of the disk's size. Only the sectors that it wrote are copied to
the Disk, so any Disk can be partitioned, and the kernel does not have to read the table again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any
from uuid import UUID

from pydiskimg.errors import DoesNotFitError, PartitionError
from pydiskimg.linux.memfd import data_ranges, sparse_memfd
from pydiskimg.linux.procfs import require_proc
from pydiskimg.partitions.layout import GPT_ENTRY, MBR, MBR_SLOTS
from pydiskimg.partitions.provisional import provisional as as_provisional
from pydiskimg.protocols import Disk, read_bytes
from pydiskimg.units import MIB, TIB, format_bytes

# Every partition starts at a multiple of this, which suits the erase blocks and RAID stripes of any device.
ALIGNMENT = MIB
# An MBR counts 512-byte sectors in 32 bits; a disk of 2 TiB has one sector more, as fdisk reports.
MBR_LIMIT = 2 * TIB - 512
# Boot code precedes the table in the first sector and belongs to the boot loader's installer.
BOOT_CODE_SIZE = MBR.slice_of("BootCode").stop
BIOS_BOOT_SIZE = MIB


class Content(Enum):
    """What a new partition is for: Content.LINUX, Content.SWAP, or Content.BIOS_BOOT, which only a GPT has.

    The types are 0x83 and 0x82 in an MBR, and the GUIDs of a Linux file system, of swap and of a BIOS boot partition in
    a GPT.

    >>> from pydiskimg import Content
    >>> [content.name for content in Content]
    ['LINUX', 'SWAP', 'BIOS_BOOT']
    """

    LINUX = "ext4"  # 0x83
    SWAP = "linux-swap(v1)"  # 0x82
    BIOS_BOOT = "BIOS boot"  # GPT only: for GRUB's core image, which on an MBR disk is before the first partition


@dataclass(frozen=True, slots=True)
class NewPartition:
    """A partition to create.

    length is bytes, rounded up to 1 MiB; None takes all that is left, and is for the last partition only. bootable sets
    the flag of an MBR.

    >>> from pydiskimg import Content, NewPartition
    >>> NewPartition(Content.LINUX, bootable=True).length is None
    True
    """

    content: Content
    length: int | None = None
    bootable: bool = False


@dataclass(frozen=True, slots=True)
class PlannedPartition:
    """A partition with its location: start and length are bytes, number counts from 1 as in the kernel."""

    number: int
    start: int
    length: int
    content: Content
    bootable: bool


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """A partition table for a disk of one size and sector size, not yet written. plan_partition_table() makes it.

    disk_size and sector_size are bytes. label is "dos" (an MBR) or "gpt". partitions have number, start and length
    (bytes), content and bootable. blocks are (offset, contents) of the sectors that make the table. boot_code is for
    the first sector, at most 440 bytes.

    >>> from pydiskimg import Content, NewPartition, plan_partition_table
    >>> table = plan_partition_table(1 << 30, 512, [NewPartition(Content.SWAP, 256 << 20), NewPartition(Content.LINUX)])
    >>> table.label, [(part.number, part.start, part.length) for part in table.partitions]
    ('dos', [(1, 1048576, 268435456), (2, 269484032, 804257792)])
    """

    label: str
    disk_size: int
    sector_size: int
    partitions: tuple[PlannedPartition, ...]
    blocks: tuple[tuple[int, bytes], ...]
    boot_code: bytes = b""

    @property
    def boot_area(self) -> tuple[int, int]:
        """The area for a BIOS's boot loader: (start, length) in bytes, of the gap or of a GPT's BIOS boot partition."""
        first = self.partitions[0]
        if first.content is Content.BIOS_BOOT:
            return first.start, first.length
        return self.sector_size, first.start - self.sector_size

    def partuuid(self, number: int) -> str:
        """Return the PARTUUID (Linux's name) of the partition with this number."""
        beginning = bytearray(max(offset + len(contents) for offset, contents in self.blocks if offset < MIB))
        for offset, contents in self.blocks:
            if offset < MIB:
                beginning[offset : offset + len(contents)] = contents
        if self.label == "gpt":
            offset = 2 * self.sector_size + (number - 1) * GPT_ENTRY.size  # the sector where libparted puts the array
            return str(UUID(bytes_le=GPT_ENTRY.unpack(beginning, offset)["UniquePartitionGUID"]))
        return f"{MBR.unpack(beginning)['UniqueMBRDiskSignature']:08x}-{number:02x}"

    def with_boot_code(self, code: bytes) -> PartitionTable:
        """Return the same table with this boot code, of at most 440 bytes."""
        if len(code) > BOOT_CODE_SIZE:
            raise ValueError(f"{len(code)} bytes of boot code; the table begins after {BOOT_CODE_SIZE}")
        return replace(self, boot_code=code)

    def write(self, disk: Disk, *, provisional: bool = False) -> None:
        """Write the table and flush it; boot code in the first sector, which a script may have written, stays.

        A provisional table has no boot code, and an MBR has types that nothing mounts and no boot flag (a GPT is
        unchanged): for tools that need a table while the disk is still being filled. It has the same identifiers as the
        final table. The disk should have been wiped by wipe_partition_table() before. Raises PartitionError when the
        disk does not have the planned size, StorageError.
        """
        if (disk.size, disk.sector_size) != (self.disk_size, self.sector_size):
            raise PartitionError(
                f"{disk.name}: has {disk.size} bytes in sectors of {disk.sector_size}; the partition table was "
                f"planned for {self.disk_size} bytes in sectors of {self.sector_size}"
            )
        for offset, contents in self.blocks:
            if offset:
                disk.write(offset, contents)
                continue
            head = as_provisional(contents) if provisional else contents
            boot_code = read_bytes(disk, 0, BOOT_CODE_SIZE)
            if not any(boot_code):
                boot_code = bytes(BOOT_CODE_SIZE) if provisional else self._own_code(head)
            disk.write(0, boot_code + head[BOOT_CODE_SIZE:])
        disk.flush()

    def _own_code(self, head: bytes) -> bytes:
        return self.boot_code.ljust(BOOT_CODE_SIZE, b"\0") if self.boot_code else head[:BOOT_CODE_SIZE]


_LARGEST = (1 << 63) - (1 << 20)  # in a file's offsets, of whole MiB


def plan_partition_table(
    disk_size: int, sector_size: int, wanted: Sequence[NewPartition], *, label: str | None = None
) -> PartitionTable:
    """Lay out the wanted partitions in their order, each at a multiple of 1 MiB; nothing is written.

    disk_size and sector_size (512 or 4096) are bytes. label is "dos" (an MBR) or "gpt"; None means an MBR below 2 TiB
    and a GPT from there on. A GPT begins with a BIOS boot partition of 1 MiB. Needs pyparted, whose libparted makes the
    table.

    Raises DoesNotFitError when the disk is too small, PartitionError for what the table cannot hold and where pyparted
    is not installed.

    >>> from pydiskimg import Content, NewPartition, Region, make_ext, new_image, plan_partition_table
    >>> with new_image("partitioned.raw", 64 << 20) as disk:
    ...     table = plan_partition_table(disk.size, disk.sector_size, [NewPartition(Content.LINUX, bootable=True)])
    ...     root = table.partitions[0]
    ...     made = make_ext(Region(disk, root.start, root.length), label="root")
    ...     table.write(disk)
    >>> made.size
    66060288
    """
    if sector_size not in (512, 4096):
        raise PartitionError(f"sectors of {sector_size} bytes are not possible; expected 512 or 4096")
    if not 0 <= disk_size <= _LARGEST:
        raise PartitionError(f"a disk of {disk_size} bytes is not possible; expected at most {_LARGEST}")
    if label is None:
        label = "dos" if disk_size <= MBR_LIMIT else "gpt"
    if label == "gpt":
        wanted = [NewPartition(Content.BIOS_BOOT, BIOS_BOOT_SIZE), *wanted]
    elif disk_size > MBR_LIMIT:
        raise PartitionError(
            f"an MBR describes disks below 2 TiB, the disk has {format_bytes(disk_size)}; make a GPT instead"
        )
    elif len(wanted) > MBR_SLOTS:
        raise PartitionError(f"an MBR holds {MBR_SLOTS} partitions, {len(wanted)} were requested")
    partitions = _laid_out(disk_size, label, wanted)
    with _label_on_memfd(disk_size, sector_size, label, partitions) as fd:
        blocks = tuple(_filled_sectors(fd, sector_size))
    return PartitionTable(label, disk_size, sector_size, partitions, blocks)


def _laid_out(disk_size: int, label: str, wanted: Sequence[NewPartition]) -> tuple[PlannedPartition, ...]:
    # The backup GPT takes the last 33 sectors: 1 MiB holds them for every sector size.
    end = disk_size // ALIGNMENT * ALIGNMENT - (ALIGNMENT if label == "gpt" else 0)
    needed = ALIGNMENT + sum(_rounded(partition.length or ALIGNMENT) for partition in wanted)
    if needed > end:
        raise DoesNotFitError(
            f"the partitions need at least {format_bytes(needed)}, the disk has {format_bytes(disk_size)}; "
            "nothing was written",
            needed=needed,
            available=disk_size,
        )
    planned = []
    start = ALIGNMENT
    for number, partition in enumerate(wanted, start=1):
        if partition.length is None and number != len(wanted):
            raise PartitionError("only the last partition can take all that is left")
        length = end - start if partition.length is None else _rounded(partition.length)
        planned.append(PlannedPartition(number, start, length, partition.content, partition.bootable))
        start += length
    return tuple(planned)


def _rounded(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


@contextmanager
def _label_on_memfd(
    disk_size: int, sector_size: int, label: str, partitions: Sequence[PlannedPartition]
) -> Iterator[int]:
    require_proc()
    parted, refusals = _libparted()
    try:
        with sparse_memfd("partition-table", disk_size) as fd, _libparted_sectors(sector_size):
            device = parted.getDevice(f"/proc/self/fd/{fd}")
            try:
                table = parted.freshDisk(device, "msdos" if label == "dos" else "gpt")
                for partition in partitions:
                    _add(parted, table, device, partition)
                table.commitToDevice()
            finally:
                # libparted caches every device by path, and the next file may have the same number.
                device.removeFromCache()
            yield fd
    except refusals as error:
        raise PartitionError(f"libparted cannot make the partition table: {error}") from error


def _libparted() -> tuple[Any, tuple[type[Exception], ...]]:
    """Return the module parted and the exceptions to expect of it. Raises PartitionError if it is not installed."""
    try:
        import _ped
        import parted  # only here: code that makes no table works without libparted
    except ImportError as error:
        raise PartitionError(
            f"a new partition table needs pyparted, which cannot be imported ({error}); install Debian's package "
            "python3-parted, or run: pip install pyparted"
        ) from error
    # They have no base class in common: PartedException is one among IOException, CreateException and others.
    return parted, (*(kind for name, kind in vars(_ped).items() if name.endswith("Exception")), OSError)


def _add(parted: Any, table: Any, device: Any, partition: PlannedPartition) -> None:
    sector_size = device.sectorSize
    geometry = parted.Geometry(device, start=partition.start // sector_size, length=partition.length // sector_size)
    is_bios_boot = partition.content is Content.BIOS_BOOT
    fs = None if is_bios_boot else parted.FileSystem(type=partition.content.value, geometry=geometry)
    made = parted.Partition(table, parted.PARTITION_NORMAL, geometry=geometry, fs=fs)
    table.addPartition(made, constraint=parted.Constraint(exactGeom=geometry))
    if is_bios_boot:
        made.setFlag(parted.PARTITION_BIOS_GRUB)
    elif partition.bootable and table.type == "msdos":  # in a GPT this flag would mean "EFI system partition"
        made.setFlag(parted.PARTITION_BOOT)


# libparted takes the sector size of a file only from the environment, which belongs to the whole process.
_environment_lock = threading.Lock()


@contextmanager
def _libparted_sectors(sector_size: int) -> Iterator[None]:
    variable = "PARTED_SECTOR_SIZE"
    with _environment_lock:
        before = os.environ.get(variable)
        os.environ[variable] = str(sector_size)
        try:
            yield
        finally:
            if before is None:
                del os.environ[variable]
            else:
                os.environ[variable] = before


def _filled_sectors(fd: int, sector_size: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, contents) of runs of sectors that are not zero."""
    for start, end in data_ranges(fd):
        contents = os.pread(fd, end - start, start)
        run = -1
        for position in range(0, len(contents) + sector_size, sector_size):
            if any(contents[position : position + sector_size]):
                run = position if run < 0 else run
            elif run >= 0:
                yield start + run, contents[run:position]
                run = -1
