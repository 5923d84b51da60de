# SPDX-License-Identifier: MIT
"""Debian's record of the disks that grub-pc is installed on: those of the old machine do not exist any more.

If grub-install once made a core.img, an upgrade of grub-pc runs grub-install on the recorded devices; without a user to
ask, it fails if one of them does not exist. The name of the instance's disk (vda, sda, xvda) depends on Ganeti's
hypervisor parameters, so the record says that there is no device, on purpose (ADR 0096).
"""

from __future__ import annotations

import logging
import re

from pydiskimg.errors import StorageError
from pydiskimg.system.edits.draft import Draft

log = logging.getLogger(__name__)

PATH = "/var/cache/debconf/config.dat"
_DEVICES = re.compile(
    rb"(^Name: grub-pc/install_devices\n(?:(?!Value:)[^\n]++\n){0,8}?)Value: ([^\n]++)\n", re.MULTILINE
)
_EMPTY = re.compile(rb"^Name: grub-pc/install_devices_empty\n(?:[^\n]++\n)*+", re.MULTILINE)
_MEANT = (
    b"Name: grub-pc/install_devices_empty\nTemplate: grub-pc/install_devices_empty\nValue: true\nOwners: grub-pc\n"
    b"Flags: seen\n"
)


def forget_grub_devices(draft: Draft) -> None:
    """Let an upgrade of grub-pc inside the guest succeed without the disks of the old machine.

    A debconf database that cannot be read is only logged, because the system boots without it.
    """
    try:
        data = draft.read(PATH)
    except StorageError as error:
        log.warning("the devices that grub-pc is installed on are not changed: %s", error)
        return
    if data is None or not _DEVICES.search(data):
        return
    new = _DEVICES.sub(rb"\1Value: \n", data, count=1)
    old = _EMPTY.search(new)
    start, end = old.span() if old else (len(new), len(new))
    draft.change(PATH, new[:start] + _MEANT + (new[end:] if old else b"\n"), "no disk of the old machine for grub-pc")
