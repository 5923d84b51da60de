# SPDX-License-Identifier: MIT
"""A guest boots from its disk: its menu, boot entries and defaults name its file systems, arguments and consoles."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from uuid import UUID

from ganeti_os.guest.boot.arguments import KernelArguments
from ganeti_os.guest.boot.boot_entries import change_boot_entries
from ganeti_os.guest.boot.grub_cfg import BootFiles, changed_menu, new_menu
from ganeti_os.guest.boot.grub_defaults import change_defaults, change_install_device
from ganeti_os.guest.boot.kernels import DIRECTORY, find_kernels
from ganeti_os.guest.boot.serial_console import add_serial_login
from ganeti_os.guest.draft import Draft
from ganeti_os.guest.network.shell_values import shell_values

log = logging.getLogger(__name__)

_MENU_LIMIT = 4 << 20  # bytes
_HOMES = ("grub", "grub2")  # below /boot


@dataclass(frozen=True, slots=True)
class NewFileSystems:
    """What a system that was built from its files boots from.

    root_uuid and boot_uuid are those of the file systems, boot_uuid None where /boot lies in the root. root_device is a
    root= that the kernel itself understands (PARTUUID=...). home is GRUB's directory below /boot, install_device the
    disk as the running system will call it.
    """

    root_uuid: UUID
    boot_uuid: UUID | None
    root_device: str
    home: str
    install_device: str


def configure_boot(draft: Draft, new: NewFileSystems, text: str, *, serial: bool) -> None:
    """Let a system on new file systems find its kernels and its root, by GRUB; text are the kernel's arguments."""
    arguments = KernelArguments.of(text, serial=serial, root=f"UUID={new.root_uuid}")
    files = BootFiles(new.boot_uuid or new.root_uuid, DIRECTORY if new.boot_uuid is None else "")
    kernels = find_kernels(draft)
    change_boot_entries(draft, arguments, files)
    change_defaults(draft, arguments)
    change_install_device(draft, new.install_device)
    path = f"{DIRECTORY}/{new.home}/grub.cfg"
    old = draft.read(path, limit=_MENU_LIMIT) if draft.is_file(path) else None
    menu = None if old is None else changed_menu(old, arguments, files, kernels)
    if menu is None and not kernels:
        log.warning("%s: there is no kernel in it, so that the instance does not boot by itself", DIRECTORY)
        return
    if menu is None:
        if old is not None:
            draft.change(f"{path}.old", old, "the menu of the image, which boots none of its kernels")
        program = f"{new.home}-mkconfig -o {path}"
        menu = new_menu(_name(draft), kernels, arguments, files, program=program, root_device=new.root_device)
    draft.change(path, menu, "the menu of the instance")


def configure_console(draft: Draft, text: str, *, serial: bool) -> None:
    """Let a system that boots as its image does have the kernel arguments and, with serial, a serial console."""
    if serial:
        add_serial_login(draft)
    arguments = KernelArguments.of(text, serial=serial)
    if not text.split() and not serial:
        return
    change_boot_entries(draft, arguments, None)
    change_defaults(draft, arguments)
    for home in _HOMES:
        path = f"{DIRECTORY}/{home}/grub.cfg"
        if draft.is_file(path):
            menu = changed_menu(draft.read(path, limit=_MENU_LIMIT) or b"", arguments, None, [])
            if menu is not None:
                draft.change(path, menu, "the kernel's arguments")


def _name(draft: Draft) -> str:
    """Return what the system calls itself."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        if draft.is_file(path):
            for value in shell_values(draft.read(path) or b"", ("PRETTY_NAME",)):
                if value.span is not None:
                    return value.span.text.decode("utf-8", "replace")
    return "Linux"
