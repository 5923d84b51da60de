# SPDX-License-Identifier: MIT
"""The disk of a new system: its partitions, and the lines of fstab(5) for their file systems."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from pydiskimg.errors import DoesNotFitError
from pydiskimg.partitions.make import Content, NewPartition, PartitionTable, PlannedPartition, plan_partition_table
from pydiskimg.protocols import Disk
from pydiskimg.regions.region import Region
from pydiskimg.system.boot.volumes import BootVolumes
from pydiskimg.system.fstab import FstabLine
from pydiskimg.units import MIB, format_bytes

SMALLEST_FILE_SYSTEM_MIB = 8


@dataclass(frozen=True, slots=True)
class Layout:
    """The roles of the partitions; the table is not written yet. boot and swap are None if not wanted."""

    table: PartitionTable
    boot: PlannedPartition | None
    swap: PlannedPartition | None
    root: PlannedPartition

    def with_table(self, table: PartitionTable) -> Layout:
        """Return the same layout with a table of other identifiers, or with boot code."""
        return replace(self, table=table)


@dataclass(frozen=True, slots=True)
class NewUuids:
    """UUIDs of the new file systems; swap is the area on a partition or on a separate disk."""

    root: UUID
    boot: UUID | None
    swap: UUID | None


def plan_layout(
    disk: Disk, *, boot_size: int | None, swap_size: int | None, label: str | None, boot_in_root: bool = False
) -> Layout:
    """Choose the partitions: /boot and swap of these sizes (bytes) unless None; the root gets the rest.

    label is as for plan_partition_table(). With boot_in_root the partition of /boot exists but is not used. Raises
    DoesNotFitError when too little space is left for a file system, PartitionError for a layout that the table cannot
    hold; nothing was written.
    """
    wanted = []
    if boot_size is not None:
        wanted.append(NewPartition(Content.LINUX, boot_size, bootable=not boot_in_root))
    if swap_size is not None:
        wanted.append(NewPartition(Content.SWAP, swap_size))
    wanted.append(NewPartition(Content.LINUX, bootable=boot_in_root or boot_size is None))
    table = plan_partition_table(disk.size, disk.sector_size, wanted, label=label)
    linux = [partition for partition in table.partitions if partition.content is Content.LINUX]
    swap = [partition for partition in table.partitions if partition.content is Content.SWAP]
    for partition, what in ((linux[-1], "the root file system"), (linux[0], "/boot")):
        _check_size(partition, disk, what)
    return Layout(
        table,
        boot=linux[0] if boot_size is not None and not boot_in_root else None,
        swap=swap[0] if swap else None,
        root=linux[-1],
    )


def _check_size(partition: PlannedPartition, disk: Disk, what: str) -> None:
    needed = SMALLEST_FILE_SYSTEM_MIB * MIB
    if partition.length < needed:
        raise DoesNotFitError(
            f"{disk.name}: the disk has {format_bytes(disk.size)}, of which {format_bytes(partition.length)} are for "
            f"{what}; expected at least {format_bytes(needed)}; nothing was written",
            needed=needed,
            available=partition.length,
        )


def partition_region(disk: Disk, partition: PlannedPartition) -> Region:
    """Return the bytes of a planned partition as a Disk."""
    return Region(disk, partition.start, partition.length, name=f"{disk.name} partition {partition.number}")


def boot_volumes(layout: Layout, uuids: NewUuids) -> BootVolumes:
    """Return the description of the new file systems for the boot loader and the kernel."""
    return BootVolumes(
        root_uuid=str(uuids.root),
        boot_uuid=None if uuids.boot is None else str(uuids.boot),
        root_partuuid=layout.table.partuuid(layout.root.number),
    )


def fstab_entries(uuids: NewUuids, filesystem: str) -> list[FstabLine]:
    """Return the lines for the new file systems, by UUID."""
    entries = [FstabLine(f"UUID={uuids.root}", "/", filesystem, "errors=remount-ro", 0, 1)]
    if uuids.boot:
        entries.append(FstabLine(f"UUID={uuids.boot}", "/boot", filesystem, "defaults", 0, 2))
    if uuids.swap:
        entries.append(FstabLine(f"UUID={uuids.swap}", "none", "swap", "sw", 0, 0))
    return entries
