# SPDX-License-Identifier: MIT
"""The boot loader of a system that was built from its files: GRUB for a BIOS, from what the system itself carries."""

from __future__ import annotations

import errno
import logging
from dataclasses import replace

from ganeti_os.install.installation import Installation
from ganeti_os.install.new_system import NewSystem, full
from ganeti_os.request import Request
from ganeti_os.settings.settings import Settings, node_architecture
from pydiskimg.boot import (
    CoreArea,
    CoreImage,
    Dress,
    Grub,
    copy_modules,
    find_core_area,
    grub_home,
    install_core,
    make_core,
    read_grub,
    write_boot_loader,
)
from pydiskimg.disks.descriptor import DescriptorDisk
from pydiskimg.errors import BootLoaderError, StorageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.files.tree import Tree
from pydiskimg.partitions.make import BOOT_CODE_SIZE, Content
from pydiskimg.system.boot.config import configure_boot
from pydiskimg.system.boot.volumes import BootVolumes
from pydiskimg.system.files.draft import GuestError
from pydiskimg.system.files.selinux import DIRECTORY, FILE, Labels
from pydiskimg.units import format_size
from pydiskimg.volumes.find import find_volumes

log = logging.getLogger(__name__)

_X86 = ("x86", "x86_64")
_BIOS_SECTOR = 512
_WRITTEN = "GRUB from %s: its files are in /boot/%s, its core image of %s at byte %d"
_NO_GRUB = (
    "the system has no /usr/lib/grub/i386-pc; add the package grub-pc-bin (Debian, Ubuntu), grub2-pc-modules (Red Hat, "
    "Fedora), grub2-i386-pc (SUSE), grub-bios (Alpine) or grub (Arch) to the image"
)


def install_boot_loader(installation: Installation, system: NewSystem, target: str) -> None:
    """Write GRUB, what it reads, and give the system's table the code that loads it: nothing boots before that comes.

    target is where the system's root is mounted, with its /boot in it. A system without GRUB, or for which there is no
    BIOS, is logged. Raises BootLoaderError for a GRUB that is not known and StorageError; an import, whose
    data are all restored by then, logs them.
    """
    if installation.settings.bootloader == "none" or not installation.request.kernel_inside:
        return
    with installation.messages.step("boot loader"), open_mounted_tree(target) as tree:
        reason = _reason_against(installation)
        if reason:
            _tell(installation, reason)
            return
        try:
            _install(installation, system, tree)
        except (BootLoaderError, GuestError, StorageError) as error:
            if installation.request.verb == "import" and getattr(error, "errno", None) != errno.EIO:
                _tell(installation, error)
                return
            if isinstance(error, BootLoaderError):
                raise BootLoaderError(f"{error}; with BOOTLOADER=none the system is installed without it") from error
            raise


def _reason_against(installation: Installation) -> str:
    """Return why no BIOS can boot the instance's disk; empty where one can."""
    settings, disk = installation.settings, installation.disk
    if node_architecture(settings.arch) not in _X86:
        return f"GRUB for a BIOS is for {' and '.join(_X86)}, the system is for {settings.arch}"
    if disk.sector_size != _BIOS_SECTOR:
        return f"a BIOS boots from sectors of {_BIOS_SECTOR} bytes only, those of {disk.name} have {disk.sector_size}"
    return ""


def _tell(installation: Installation, reason: object) -> None:
    """Log why no boot loader was written; a script may bring one."""
    if installation.scripts:
        log.info("no boot loader is written, so a customisation script has to bring one: %s", reason)
    else:
        log.warning("no boot loader is written, and the instance does not boot by itself: %s", reason)


def _install(installation: Installation, system: NewSystem, tree: Tree) -> None:
    grub = read_grub(tree)
    if grub is None:
        _tell(installation, _NO_GRUB)
        return
    table, layout = system.layout.table, system.layout
    boot = layout.boot if system.volumes.boot is not None and layout.boot is not None else layout.root
    home = grub_home(tree)
    core = _core(grub, table.label, boot.number, _boot_volumes(system), home)
    area = CoreArea(*table.boot_area, is_partition=table.partitions[0].content is Content.BIOS_BOOT)
    try:
        _write_files(tree, grub, home, _boot_volumes(system), installation.settings, installation.request)
    except StorageError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise full(error, installation, is_boot=system.boot_device is not None) from error
    sector = install_core(installation.disk, core, area, grub)
    system.layout = replace(system.layout, table=table.with_boot_code(sector[:BOOT_CODE_SIZE]))
    log.info(_WRITTEN, grub.directory, home, format_size(core.size), area.start)


def write_grub(disk: DescriptorDisk, tree: Tree, boot: BootVolumes, settings: Settings, request: Request) -> None:
    """Write the tree's own GRUB to a disk that has its partition table already, and what GRUB reads.

    Raises BootLoaderError, also for a tree without GRUB, and StorageError.
    """
    grub = read_grub(tree)
    if grub is None:
        raise BootLoaderError(f"{disk.name}: {_NO_GRUB}")
    home = grub_home(tree)
    where = find_core_area(disk)
    label = "gpt" if where.is_partition else "dos"
    found = {volume.content.uuid: volume.partition for volume in find_volumes(disk) if volume.content}
    if boot.uuid not in found:
        raise BootLoaderError(f"{disk.name}: none of its partitions has the file system {boot.uuid} with the kernels")
    boot = replace(boot, root_partuuid=found[boot.root_uuid].uuid if boot.root_uuid in found else None)
    core = _core(grub, label, found[boot.uuid].number, boot, home)
    _write_files(tree, grub, home, boot, settings, request)
    write_boot_loader(disk, core, where, grub)
    log.info(_WRITTEN, grub.directory, home, format_size(core.size), where.start)


def _write_files(tree: Tree, grub: Grub, home: str, boot: BootVolumes, settings: Settings, request: Request) -> None:
    """Write what GRUB reads when it boots: its modules and its menu."""
    copy_modules(tree, grub, f"/boot/{home}", dress=_labels(tree))
    configure_boot(tree, boot, kernel_args=settings.kernel_args, serial_console=request.serial_console)


def _boot_volumes(system: NewSystem) -> BootVolumes:
    root, boot, layout = system.volumes.root, system.volumes.boot, system.layout
    return BootVolumes(
        root_uuid=str(root),
        boot_uuid=None if boot is None else str(boot),
        root_partuuid=layout.table.partuuid(layout.root.number),
    )


def _labels(tree: Tree) -> Dress:
    """Return what gives new files the SELinux labels of the system's own policy."""
    labels = Labels(tree)

    def dress(path: str, *, is_directory: bool) -> dict[str, bytes]:
        return labels.attributes(path, DIRECTORY if is_directory else FILE)

    return dress


def _core(grub: Grub, label: str, number: int, boot: BootVolumes, home: str) -> CoreImage:
    """Return a core image that finds its files by their file system's UUID, else in the partition of this number."""
    directory = boot.loader_path(f"/boot/{home}")
    scheme = "gpt" if label == "gpt" else "msdos"
    config = f"search.fs_uuid {boot.uuid} root\nset prefix=($root)'{directory}'\n"
    # ext2 reads ext3 and ext4, too.
    modules = ["biosdisk", f"part_{scheme}", "ext2", "search_fs_uuid"]
    return make_core(grub, modules, config=config, prefix=f"(,{scheme}{number}){directory}")
