# SPDX-License-Identifier: MIT
"""The boot loader of a system that was built from its files: GRUB for a BIOS, from what the system itself carries."""

from __future__ import annotations

import errno
import logging
from dataclasses import replace

from ganeti_os.guest.boot_config import configure_boot
from ganeti_os.guest.boot_place import BootPlace
from ganeti_os.guest.draft import GuestError
from ganeti_os.guest.selinux import DIRECTORY, FILE, Labels
from ganeti_os.installation import Installation
from ganeti_os.settings import node_architecture
from ganeti_os.volumes import NewSystem, full
from pydiskimg.boot import Dress, Place, copy_modules, grub_home, install_core, make_core, read_grub
from pydiskimg.errors import BootLoaderError, StorageError
from pydiskimg.partition import BOOT_CODE_SIZE, Content
from pydiskimg.protocols import Tree
from pydiskimg.tree import open_tree
from pydiskimg.units import format_size

log = logging.getLogger(__name__)

_X86 = ("x86", "x86_64")
_BIOS_SECTOR = 512
_NOT_WRITTEN = "no boot loader is written, and the instance does not boot by itself: %s"


def install_boot_loader(installation: Installation, system: NewSystem, target: str) -> None:
    """Write GRUB, what it reads, and give the system's table the code that loads it: nothing boots before that comes.

    target is where the system's root is mounted, with its /boot in it. A system without GRUB, or for which there is no
    BIOS, is told in the log. Raises BootLoaderError for a GRUB that is not known and StorageError; an import, whose
    data are all restored by then, logs them.
    """
    if installation.settings.bootloader == "none" or not installation.request.kernel_inside:
        return
    with installation.messages.step("boot loader"), open_tree(target) as tree:
        reason = _reason_against(installation)
        if reason:
            log.warning(_NOT_WRITTEN, reason)
            return
        try:
            _install(installation, system, tree)
        except (BootLoaderError, GuestError, StorageError) as error:
            if installation.request.verb == "import" and getattr(error, "errno", None) != errno.EIO:
                log.warning(_NOT_WRITTEN, error)
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


def _install(installation: Installation, system: NewSystem, tree: Tree) -> None:
    grub = read_grub(tree)
    if grub is None:
        log.warning(
            _NOT_WRITTEN,
            "the system has no /usr/lib/grub/i386-pc; add the package grub-pc-bin (Debian, Ubuntu), grub2-pc-modules "
            "(Red Hat, Fedora) or grub2-i386-pc (SUSE) to the image, or let a customisation script bring a boot loader",
        )
        return
    home = grub_home(tree)
    modules, config, prefix = _core_parts(system, home)
    core = make_core(grub, modules, config=config, prefix=prefix)
    table = system.layout.table
    place = Place(*table.boot_area, is_partition=table.partitions[0].content is Content.BIOS_BOOT)
    try:
        copied = copy_modules(tree, grub, f"/boot/{home}", dress=_labels(tree))
        configure_boot(
            tree,
            _boot_place(system),
            kernel_args=installation.settings.kernel_args,
            serial_console=installation.request.serial_console,
        )
    except StorageError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise full(error, installation, is_boot=system.boot_device is not None) from error
    sector = install_core(installation.disk, core, place, grub)
    system.layout = replace(system.layout, table=table.with_boot_code(sector[:BOOT_CODE_SIZE]))
    log.info(
        "GRUB of %s: %s at byte %d, %d files in /boot/%s",
        grub.directory,
        format_size(core.size),
        place.start,
        copied,
        home,
    )


def _boot_place(system: NewSystem) -> BootPlace:
    volumes = system.volumes
    return BootPlace(root_uuid=str(volumes.root), boot_uuid=None if volumes.boot is None else str(volumes.boot))


def _labels(tree: Tree) -> Dress:
    """Return what gives new files the SELinux labels of the system's own policy."""
    labels = Labels(tree)

    def dress(path: str, *, is_directory: bool) -> dict[str, bytes]:
        return labels.attributes(path, DIRECTORY if is_directory else FILE)

    return dress


def _core_parts(system: NewSystem, home: str) -> tuple[list[str], str, str]:
    """Return modules, first commands and prefix of a core image that finds its files by their file system's UUID."""
    layout, volumes = system.layout, system.volumes
    boot, uuid, directory = layout.root, volumes.root, f"/boot/{home}"
    if layout.boot is not None and volumes.boot is not None:
        boot, uuid, directory = layout.boot, volumes.boot, f"/{home}"
    scheme = "gpt" if layout.table.label == "gpt" else "msdos"
    config = f"search.fs_uuid {uuid} root\nset prefix=($root)'{directory}'\n"
    # ext2 reads ext3 and ext4, too.
    return ["biosdisk", f"part_{scheme}", "ext2", "search_fs_uuid"], config, f"(,{scheme}{boot.number}){directory}"
