# SPDX-License-Identifier: MIT
"""The disk of a system that is built from its files: partitions, file systems, their fstab, and the table last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from ganeti_os.install.customise import run_scripts
from ganeti_os.install.installation import Installation
from ganeti_os.settings.settings import Settings
from ganeti_os.settings.shellfile import SettingsError
from pydiskimg.disks.descriptor import DescriptorDisk
from pydiskimg.disks.region import Region
from pydiskimg.disks.wipe import wipe_partition_table
from pydiskimg.errors import DoesNotFitError, NoSpaceError, StorageError
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.swap import check_swap, make_swap
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import enter_private_namespace, mounted
from pydiskimg.partitions.make import (
    MBR_LIMIT,
    Content,
    NewPartition,
    PartitionTable,
    PlannedPartition,
    plan_partition_table,
)
from pydiskimg.system import fstab
from pydiskimg.units import MIB, format_bytes

SMALLEST_FILE_SYSTEM_MIB = 8


@dataclass(frozen=True, slots=True)
class Layout:
    """Which partition is what; the table is not written yet. boot and swap are None when not wanted."""

    table: PartitionTable
    boot: PlannedPartition | None
    swap: PlannedPartition | None
    root: PlannedPartition


@dataclass(frozen=True, slots=True)
class NewUuids:
    """UUIDs of what was made; swap is the area on a partition or on the disk of its own."""

    root: UUID
    boot: UUID | None
    swap: UUID | None


@dataclass(slots=True)
class NewSystem:
    """Empty file systems on a disk that has no partition table yet, and the devices that show them.

    The layout's table is written at the end, whatever it is by then: see without_boot().
    """

    layout: Layout
    volumes: NewUuids
    root_device: str
    boot_device: str | None


@contextmanager
def new_system(installation: Installation) -> Iterator[NewSystem]:
    """Make the file systems; what the block puts into them gets its partition table when it leaves without an error.

    All refusals come before the disk is wiped. Needs root.
    """
    messages, disk = installation.messages, installation.disk
    with messages.step("partitioning"):
        enter_private_namespace()
        layout = plan_layout(installation)
        if installation.swap is not None:
            check_swap(installation.swap)
        wipe_partition_table(disk)
        installation.wiping.wipe(disk)
    with messages.step("making file systems"):
        volumes = make_volumes(layout, installation)
    with ExitStack() as stack:
        root_device = _loop(stack, disk, layout.root)
        boot_device = _loop(stack, disk, layout.boot) if layout.boot else None
        system = NewSystem(layout, volumes, root_device, boot_device)
        yield system
    with messages.step("writing the partition table"):
        disk.flush()
        system.layout.table.write(disk)


def without_boot(system: NewSystem, installation: Installation) -> None:
    """Let /boot be a directory of the root file system, whose partition gets the boot flag; /boot's stays empty."""
    system.layout = plan_layout(installation, boot_in_root=True)
    system.volumes = replace(system.volumes, boot=None)
    system.boot_device = None


@contextmanager
def naming_what_is_full(installation: Installation, *, boot: str | None) -> Iterator[None]:
    """Add to an error of a full file system what makes it larger; boot is where /boot is mounted, None: in the root."""
    try:
        yield
    except NoSpaceError as error:
        is_boot = boot is not None and os.stat(boot).st_dev == error.device
        raise full(error, installation, is_boot=is_boot) from error


def full(error: StorageError, installation: Installation, *, is_boot: bool) -> StorageError:
    """Return an error of a full file system with what makes it larger."""
    hint = "give the instance a larger disk"
    if is_boot:
        hint = f"/boot has {installation.settings.boot_size_mib} MiB; set BOOT_SIZE higher"
    return StorageError(f"{error}; {hint}", errno=error.errno, filename=error.filename)


def plan_layout(installation: Installation, *, boot_in_root: bool = False) -> Layout:
    """Decide on the partitions: /boot when the kernel is inside, swap unless it has a disk of its own, the root.

    With boot_in_root that of /boot is not used, though it is there. Raises DoesNotFitError or SettingsError before
    anything was written.
    """
    settings, request = installation.settings, installation.request
    wanted = []
    if request.kernel_inside:
        wanted.append(NewPartition(Content.LINUX, settings.boot_size_mib * MIB, bootable=not boot_in_root))
    if settings.swap and installation.swap is None:
        wanted.append(NewPartition(Content.SWAP, _swap_size_mib(installation) * MIB))
    wanted.append(NewPartition(Content.LINUX, bootable=boot_in_root or not request.kernel_inside))
    disk = installation.disk
    if request.kernel_inside and settings.boot_size_mib < SMALLEST_FILE_SYSTEM_MIB:
        raise SettingsError(
            f"BOOT_SIZE is {settings.boot_size_mib}; a file system needs at least {SMALLEST_FILE_SYSTEM_MIB} MiB"
        )
    table = plan_partition_table(disk.size, disk.sector_size, wanted, label=_label(settings, disk))
    check_root_size(table.partitions[-1], disk)
    linux = [partition for partition in table.partitions if partition.content is Content.LINUX]
    swap = [partition for partition in table.partitions if partition.content is Content.SWAP]
    return Layout(
        table,
        boot=linux[0] if request.kernel_inside and not boot_in_root else None,
        swap=swap[0] if swap else None,
        root=linux[-1],
    )


def _label(settings: Settings, disk: DescriptorDisk) -> str | None:
    """Return which table is made; None where the disk's size decides."""
    if settings.partition_table == "mbr" and disk.size > MBR_LIMIT:
        raise SettingsError(
            f"PARTITION_TABLE is mbr, which describes disks below 2 TiB; {disk.name} has {format_bytes(disk.size)}; "
            "set it to gpt or auto"
        )
    return {"auto": None, "mbr": "dos", "gpt": "gpt"}[settings.partition_table]


def check_root_size(root: PlannedPartition, disk: DescriptorDisk) -> None:
    """Raise DoesNotFitError when nothing is left for the root file system."""
    needed = SMALLEST_FILE_SYSTEM_MIB * MIB
    if root.length < needed:
        raise DoesNotFitError(
            f"{disk.name}: the disk has {format_bytes(disk.size)}, which leaves {format_bytes(root.length)} for the "
            f"root file system; expected {format_bytes(needed)} at least; nothing was written",
            needed=needed,
            available=root.length,
        )


def _swap_size_mib(installation: Installation) -> int:
    size = installation.settings.swap_size_mib or installation.request.memory_mib
    if size is None:
        raise SettingsError(
            "SWAP=yes, but SWAP_SIZE is empty and Ganeti did not tell the instance's memory (INSTANCE_BE_maxmem); "
            "set SWAP_SIZE in MiB, or SWAP=no"
        )
    return size


def make_volumes(layout: Layout, installation: Installation) -> NewUuids:
    """Make file systems and swap, and bring them to stable storage before the kernel looks at them."""
    disk, kind = installation.disk, installation.settings.filesystem

    def region(partition: PlannedPartition) -> Region:
        return Region(disk, partition.start, partition.length, name=f"{disk.name} partition {partition.number}")

    root = make_ext(region(layout.root), kind=kind, label="/").uuid
    boot = make_ext(region(layout.boot), kind=kind, label="/boot").uuid if layout.boot else None
    swap = None
    if installation.swap is not None:
        installation.wiping.wipe(installation.swap)
        swap = make_swap(installation.swap).uuid
        installation.swap.flush()
    elif layout.swap is not None:
        swap = make_swap(region(layout.swap)).uuid
    disk.flush()
    return NewUuids(root, boot, swap)


def _loop(stack: ExitStack, disk: DescriptorDisk, partition: PlannedPartition) -> str:
    return stack.enter_context(
        loop_device(disk.fd, offset=partition.start, length=partition.length, sector_size=disk.sector_size)
    ).path


def mount_volume(stack: ExitStack, installation: Installation, device: str, *, target: str | None = None) -> str:
    """Mount a new file system until the stack is closed; scripts may run programs there."""
    fs_type = installation.settings.filesystem
    return stack.enter_context(mounted(device, fs_type=fs_type, target=target, programs=bool(installation.scripts)))


def customise_provisional(installation: Installation, system: NewSystem, target: str) -> None:
    """Run the scripts on the new system, mounted at target."""
    # Boot loaders want a table; this one has every place and nothing that boots or mounts by it.
    system.layout.table.write(installation.disk, provisional=True)
    run_scripts(installation, target, system.root_device, system.boot_device)


def fstab_entries(volumes: NewUuids, filesystem: str) -> list[fstab.FstabLine]:
    """Return the lines for what was made, by UUID."""
    entries = [fstab.FstabLine(f"UUID={volumes.root}", "/", filesystem, "errors=remount-ro", 0, 1)]
    if volumes.boot:
        entries.append(fstab.FstabLine(f"UUID={volumes.boot}", "/boot", filesystem, "defaults", 0, 2))
    if volumes.swap:
        entries.append(fstab.FstabLine(f"UUID={volumes.swap}", "none", "swap", "sw", 0, 0))
    return entries
