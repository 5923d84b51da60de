# SPDX-License-Identifier: MIT
"""The disk of a system that is built from its files: partitions, file systems, their fstab, and the table last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from ganeti_os.install.customise import run_scripts
from ganeti_os.install.installation import Installation
from ganeti_os.settings.settings import Settings
from ganeti_os.settings.shellfile import SettingsError
from pydiskimg.disks.descriptor import DescriptorDisk
from pydiskimg.disks.wipe import wipe_partition_table
from pydiskimg.errors import NoSpaceError, StorageError
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.swap import check_swap, make_swap
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import enter_private_namespace, mounted
from pydiskimg.partitions.make import MBR_LIMIT, PlannedPartition
from pydiskimg.system import layout as system_layout
from pydiskimg.system.layout import SMALLEST_FILE_SYSTEM_MIB, Layout, NewUuids, partition_region
from pydiskimg.units import MIB, format_bytes


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
    settings, disk = installation.settings, installation.disk
    has_boot = installation.request.kernel_inside
    if has_boot and settings.boot_size_mib < SMALLEST_FILE_SYSTEM_MIB:
        raise SettingsError(
            f"BOOT_SIZE is {settings.boot_size_mib}; a file system needs at least {SMALLEST_FILE_SYSTEM_MIB} MiB"
        )
    has_swap = settings.swap and installation.swap is None
    return system_layout.plan_layout(
        disk,
        boot_size=settings.boot_size_mib * MIB if has_boot else None,
        swap_size=_swap_size_mib(installation) * MIB if has_swap else None,
        label=_label(settings, disk),
        boot_in_root=boot_in_root,
    )


def _label(settings: Settings, disk: DescriptorDisk) -> str | None:
    """Return which table is made; None where the disk's size decides."""
    if settings.partition_table == "mbr" and disk.size > MBR_LIMIT:
        raise SettingsError(
            f"PARTITION_TABLE is mbr, which describes disks below 2 TiB; {disk.name} has {format_bytes(disk.size)}; "
            "set it to gpt or auto"
        )
    return {"auto": None, "mbr": "dos", "gpt": "gpt"}[settings.partition_table]


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
    root = make_ext(partition_region(disk, layout.root), kind=kind, label="/").uuid
    boot = make_ext(partition_region(disk, layout.boot), kind=kind, label="/boot").uuid if layout.boot else None
    swap = None
    if installation.swap is not None:
        installation.wiping.wipe(installation.swap)
        swap = make_swap(installation.swap).uuid
        installation.swap.flush()
    elif layout.swap is not None:
        swap = make_swap(partition_region(disk, layout.swap)).uuid
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
