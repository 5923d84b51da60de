# SPDX-License-Identifier: MIT
"""GRUB for a BIOS on a system's disk, made from the system's own package: its files, its menu, its core image."""

from __future__ import annotations

import logging
from dataclasses import replace

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
from pydiskimg.errors import BootLoaderError
from pydiskimg.files.tree import Tree
from pydiskimg.partitions.make import BOOT_CODE_SIZE, Content
from pydiskimg.protocols import Disk
from pydiskimg.system.boot.config import configure_boot
from pydiskimg.system.boot.volumes import BootVolumes
from pydiskimg.system.edits.selinux import DIRECTORY, FILE, Labels
from pydiskimg.system.layout import Layout, NewUuids, boot_volumes
from pydiskimg.units import format_size
from pydiskimg.volumes.find import find_volumes

log = logging.getLogger(__name__)

NO_GRUB = (
    "the system has no /usr/lib/grub/i386-pc; add the package grub-pc-bin (Debian, Ubuntu), grub2-pc-modules (Red Hat, "
    "Fedora), grub2-i386-pc (SUSE), grub-bios (Alpine) or grub (Arch) to the image"
)
_BIOS_SECTOR = 512
_WRITTEN = "GRUB from %s: its files are in /boot/%s, its core image of %s at byte %d"


def reason_against_bios(disk: Disk) -> str:
    """Return why a BIOS cannot boot a disk; empty if it can."""
    if disk.sector_size != _BIOS_SECTOR:
        return f"a BIOS boots only from sectors of {_BIOS_SECTOR} bytes, those of {disk.name} have {disk.sector_size}"
    return ""


def install_grub(
    disk: Disk, tree: Tree, layout: Layout, uuids: NewUuids, *, kernel_args: str, serial_console: bool
) -> Layout | None:
    """Write the tree's own GRUB, and the files that it reads, to a new system's disk; None for a tree without GRUB.

    Returns the layout whose table has the code that loads GRUB: the disk does not boot before that table is written.
    tree is the whole system, including its /boot. Raises BootLoaderError for an unknown GRUB, and StorageError.
    """
    grub = read_grub(tree)
    if grub is None:
        return None
    table, boot = layout.table, boot_volumes(layout, uuids)
    number = layout.boot.number if uuids.boot is not None and layout.boot is not None else layout.root.number
    home = grub_home(tree)
    core = _core(grub, table.label, number, boot, home)
    area = CoreArea(*table.boot_area, is_partition=table.partitions[0].content is Content.BIOS_BOOT)
    _write_files(tree, grub, home, boot, kernel_args=kernel_args, serial_console=serial_console)
    sector = install_core(disk, core, area, grub)
    log.info(_WRITTEN, grub.directory, home, format_size(core.size), area.start)
    return layout.with_table(table.with_boot_code(sector[:BOOT_CODE_SIZE]))


def write_grub(disk: Disk, tree: Tree, boot: BootVolumes, *, kernel_args: str, serial_console: bool) -> None:
    """Write the tree's own GRUB, and the files that it reads, to a disk that already has its partition table.

    Raises BootLoaderError, also for a tree without GRUB, and StorageError.
    """
    grub = read_grub(tree)
    if grub is None:
        raise BootLoaderError(f"{disk.name}: {NO_GRUB}")
    home = grub_home(tree)
    where = find_core_area(disk)
    label = "gpt" if where.is_partition else "dos"
    found = {volume.content.uuid: volume.partition for volume in find_volumes(disk) if volume.content}
    if boot.uuid not in found:
        raise BootLoaderError(f"{disk.name}: none of its partitions has the file system {boot.uuid} with the kernels")
    boot = replace(boot, root_partuuid=found[boot.root_uuid].uuid if boot.root_uuid in found else None)
    core = _core(grub, label, found[boot.uuid].number, boot, home)
    _write_files(tree, grub, home, boot, kernel_args=kernel_args, serial_console=serial_console)
    write_boot_loader(disk, core, where, grub)
    log.info(_WRITTEN, grub.directory, home, format_size(core.size), where.start)


def _write_files(
    tree: Tree, grub: Grub, home: str, boot: BootVolumes, *, kernel_args: str, serial_console: bool
) -> None:
    """Write the files that GRUB reads at boot: its modules and its menu."""
    copy_modules(tree, grub, f"/boot/{home}", dress=_labels(tree))
    configure_boot(tree, boot, kernel_args=kernel_args, serial_console=serial_console)


def _labels(tree: Tree) -> Dress:
    """Return a function that gives new files the SELinux labels of the system's own policy."""
    labels = Labels(tree)

    def dress(path: str, *, is_directory: bool) -> dict[str, bytes]:
        return labels.attributes(path, DIRECTORY if is_directory else FILE)

    return dress


def _core(grub: Grub, label: str, number: int, boot: BootVolumes, home: str) -> CoreImage:
    """Return a core image that finds its files by their file system's UUID, or else in the partition of this number."""
    directory = boot.loader_path(f"/boot/{home}")
    scheme = "gpt" if label == "gpt" else "msdos"
    config = f"search.fs_uuid {boot.uuid} root\nset prefix=($root)'{directory}'\n"
    # The module ext2 also reads ext3 and ext4.
    modules = ["biosdisk", f"part_{scheme}", "ext2", "search_fs_uuid"]
    return make_core(grub, modules, config=config, prefix=f"(,{scheme}{number}){directory}")
