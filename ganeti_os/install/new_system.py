# SPDX-License-Identifier: MIT
"""The disk of a system that is built from its files: partitions, file systems, and the table last.

File systems are filled as they are made, then changed, and mounted only for customisation scripts (ADR 0126).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

from ganeti_os.guest.mounted_guest import mount_point_inside
from ganeti_os.install.customise import run_scripts
from ganeti_os.install.installation import Installation, require_mounting
from ganeti_os.settings.settings import Settings
from ganeti_os.settings.shellfile import SettingsError
from pydiskimg.disks.descriptor import DescriptorDisk
from pydiskimg.disks.wipe import wipe_partition_table
from pydiskimg.errors import DoesNotFitError, StorageError
from pydiskimg.files.tree import Tree
from pydiskimg.fs.ext4.change.joined import JoinedTree
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.ext4.new_file_system import NewExt
from pydiskimg.fs.ext4.populate.filling import Filling
from pydiskimg.fs.swap import check_swap, make_swap
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import mounted
from pydiskimg.partitions.make import MBR_LIMIT, PlannedPartition
from pydiskimg.regions.region import Region
from pydiskimg.system import layout as system_layout
from pydiskimg.system.layout import SMALLEST_FILE_SYSTEM_MIB, Layout, NewUuids
from pydiskimg.units import MIB, format_bytes


class _Unflushed(Region):
    """A partition that is not in a partition table until the disk as a whole was flushed."""

    def flush(self) -> None:
        pass


@dataclass(slots=True)
class NewSystem:
    """A disk without a partition table yet, and the file systems of its root and of /boot (None: in the root).

    The layout's table is written at the end, as it is then: see without_boot(). hints are for a full file system, by
    the names of root and boot.
    """

    layout: Layout
    volumes: NewUuids
    root: Region
    boot: Region | None
    hints: dict[str, str] = field(default_factory=dict)

    def filling(self, installation: Installation) -> Filling:
        """Begin to make the file systems; join("/boot") is the caller's."""
        return Filling(*self.wanted(installation))

    def wanted(self, installation: Installation) -> list[NewExt]:
        """Return the file systems that are to be made."""
        kind = installation.settings.filesystem
        found = [NewExt(disk=self.root, kind=kind, label="/", uuid=self.volumes.root)]
        if self.boot is not None:
            found.append(NewExt(disk=self.boot, kind=kind, label="/boot", uuid=self.volumes.boot))
        return found


def prepare_scripts(installation: Installation) -> None:
    """Enter the namespace that scripts need; call this before reading, which may start a thread."""
    if installation.scripts:
        require_mounting("customisation scripts run in the mounted system; without them nothing is mounted")


@contextmanager
def new_system(installation: Installation) -> Iterator[NewSystem]:
    """Wipe the disk; its new contents get their partition table when the block ends without an error.

    All refusals come before the disk is wiped.
    """
    messages, disk = installation.messages, installation.disk
    with messages.step("partitioning"):
        layout = plan_layout(installation)
        system = _system(layout, installation)
        for ext in system.wanted(installation):
            ext.allocated(journal_first=True)
        if installation.swap is not None:
            check_swap(installation.swap)
        wipe_partition_table(disk)
        installation.wiping.wipe(disk)
        system.volumes = replace(system.volumes, swap=_make_swap(layout, installation))
    yield system
    with messages.step("writing the partition table"):
        disk.flush()
        system.layout.table.write(disk)


def _system(layout: Layout, installation: Installation) -> NewSystem:
    root = _unflushed(installation.disk, layout.root)
    boot = None if layout.boot is None else _unflushed(installation.disk, layout.boot)
    hints = {root.name: _hint(installation, is_boot=False)}
    if boot is not None:
        hints[boot.name] = _hint(installation, is_boot=True)
    return NewSystem(layout, NewUuids(uuid4(), None if boot is None else uuid4(), None), root, boot, hints)


def without_boot(system: NewSystem, installation: Installation) -> None:
    """Make /boot a directory of the root file system, whose partition gets the boot flag; /boot's stays empty."""
    system.layout = plan_layout(installation, boot_in_root=True)
    system.volumes = replace(system.volumes, boot=None)
    system.boot = None


@contextmanager
def opened_system(system: NewSystem) -> Iterator[Tree]:
    """Open the new system, including its /boot, to be read and changed."""
    with open_changed_tree(system.root) as root:
        if system.boot is None:
            yield root
            return
        with open_changed_tree(system.boot) as boot:
            joined = JoinedTree(root)
            joined.join("/boot", boot)
            yield joined


def full(error: StorageError, installation: Installation, *, is_boot: bool) -> StorageError:
    """Return the error of a full file system with advice for making it larger."""
    hint = _hint(installation, is_boot=is_boot)
    return StorageError(f"{error}; {hint}", errno=error.errno, filename=error.filename)


def _hint(installation: Installation, *, is_boot: bool) -> str:
    if is_boot:
        return f"/boot has {installation.settings.boot_size_mib} MiB; set BOOT_SIZE higher"
    return "give the instance a larger disk"


def plan_layout(installation: Installation, *, boot_in_root: bool = False) -> Layout:
    """Choose the partitions: /boot if the kernel is inside, swap unless it has a separate disk, the root.

    With boot_in_root the partition of /boot exists but is not used. Raises DoesNotFitError or SettingsError before the
    first write.
    """
    settings, disk = installation.settings, installation.disk
    has_boot = installation.request.kernel_inside
    if has_boot and settings.boot_size_mib < SMALLEST_FILE_SYSTEM_MIB:
        raise SettingsError(
            f"BOOT_SIZE is {settings.boot_size_mib}; a file system needs at least {SMALLEST_FILE_SYSTEM_MIB} MiB"
        )
    swap_mib = _swap_size_mib(installation) if settings.swap and installation.swap is None else None
    try:
        return system_layout.plan_layout(
            disk,
            boot_size=settings.boot_size_mib * MIB if has_boot else None,
            swap_size=swap_mib * MIB if swap_mib is not None else None,
            label=_label(settings, disk),
            boot_in_root=boot_in_root,
        )
    except DoesNotFitError as error:
        if swap_mib is None:
            raise
        source = "SWAP_SIZE" if settings.swap_size_mib else "the instance's memory"
        text = f"{error}; {swap_mib} MiB of that are swap ({source}): set SWAP_SIZE, or SWAP=no"
        raise DoesNotFitError(text, needed=error.needed, available=error.available) from error


def _label(settings: Settings, disk: DescriptorDisk) -> str | None:
    """Return the kind of table; None if the disk's size decides."""
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
            "SWAP=yes, but SWAP_SIZE is empty and Ganeti did not pass the instance's memory (INSTANCE_BE_maxmem); "
            "set SWAP_SIZE in MiB, or SWAP=no"
        )
    return size


def _make_swap(layout: Layout, installation: Installation) -> UUID | None:
    """Make the swap area, on its partition or on a separate disk; None if none is wanted."""
    if installation.swap is not None:
        installation.wiping.wipe(installation.swap)
        swap = make_swap(installation.swap).uuid
        installation.swap.flush()
        return swap
    return None if layout.swap is None else make_swap(_unflushed(installation.disk, layout.swap)).uuid


def _unflushed(disk: DescriptorDisk, partition: PlannedPartition) -> Region:
    return _Unflushed(disk, partition.start, partition.length, name=f"{disk.name} partition {partition.number}")


def customise_provisional(installation: Installation, system: NewSystem) -> None:
    """Mount the new system and run the scripts on it."""
    installation.disk.flush()  # before the kernel reads it
    with installation.messages.step("customising"), ExitStack() as mounts:
        root_device = _loop(mounts, installation.disk, system.layout.root)
        target = _mount(mounts, installation, root_device)
        boot_device = None
        if system.boot is not None and system.layout.boot is not None:
            boot_device = _loop(mounts, installation.disk, system.layout.boot)
            _mount(mounts, installation, boot_device, target=mount_point_inside(target, "boot"))
        # Boot loaders need a table; this one has all locations and types that nothing boots or mounts.
        system.layout.table.write(installation.disk, provisional=True)
        run_scripts(installation, target, root_device, boot_device)


def _loop(stack: ExitStack, disk: DescriptorDisk, partition: PlannedPartition) -> str:
    return stack.enter_context(
        loop_device(disk.fd, offset=partition.start, length=partition.length, sector_size=disk.sector_size)
    ).path


def _mount(stack: ExitStack, installation: Installation, device: str, *, target: str | None = None) -> str:
    """Mount a new file system until the stack is closed; scripts may run programs there."""
    fs_type = installation.settings.filesystem
    return stack.enter_context(mounted(device, fs_type=fs_type, target=target, programs=True))
