# SPDX-License-Identifier: MIT
"""The boot loader of a system that was built from its files: GRUB for a BIOS, from the system's own package."""

from __future__ import annotations

import errno
import logging

from ganeti_os.install.installation import Installation
from ganeti_os.install.new_system import NewSystem, full
from ganeti_os.settings.settings import node_architecture
from pydiskimg.errors import BootLoaderError, StorageError
from pydiskimg.files.tree import Tree
from pydiskimg.system.boot_loader import NO_GRUB, install_grub, reason_against_bios
from pydiskimg.system.edits.draft import GuestError

log = logging.getLogger(__name__)

_X86 = ("x86", "x86_64")


def install_boot_loader(installation: Installation, system: NewSystem, tree: Tree) -> None:
    """Write GRUB and its files, and put the code that loads it into the system's table: nothing boots before that.

    tree is the whole system, including its /boot. A system without GRUB, or for a machine without a BIOS, is logged.
    Raises BootLoaderError for an unknown GRUB and StorageError; an import, whose data are all restored by then, logs
    them.
    """
    if installation.settings.bootloader == "none" or not installation.request.kernel_inside:
        return
    with installation.messages.step("boot loader"):
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
    """Return why a BIOS cannot boot the instance's disk; empty if it can."""
    settings, disk = installation.settings, installation.disk
    if node_architecture(settings.arch) not in _X86:
        return f"GRUB for a BIOS is for {' and '.join(_X86)}, the system is for {settings.arch}"
    return reason_against_bios(disk)


def _tell(installation: Installation, reason: object) -> None:
    """Log why no boot loader was written; a script may bring one."""
    if installation.scripts:
        log.info("no boot loader is written, so a customisation script must install one: %s", reason)
    else:
        log.warning("no boot loader is written, and the instance cannot boot by itself: %s", reason)


def _install(installation: Installation, system: NewSystem, tree: Tree) -> None:
    settings, disk = installation.settings, installation.disk
    try:
        layout = install_grub(
            disk,
            tree,
            system.layout,
            system.volumes,
            kernel_args=settings.kernel_args,
            serial_console=installation.request.serial_console,
        )
    except StorageError as error:
        if error.errno != errno.ENOSPC or error.filename == disk.name:
            raise
        raise full(error, installation, is_boot=system.boot is not None) from error
    if layout is None:
        _tell(installation, NO_GRUB)
        return
    system.layout = layout
