# SPDX-License-Identifier: MIT
"""What a new system's boot loader reads: grub.cfg, and the settings that the guest's own update-grub makes it from."""

from __future__ import annotations

import logging
import re

from ganeti_os.guest.boot_place import BootPlace
from ganeti_os.guest.draft import Draft
from ganeti_os.guest.grub_cfg import UnsafeConfigError, new_config, up_to_date
from ganeti_os.guest.kernel_arguments import wanted_arguments
from ganeti_os.guest.kernels import find_kernels
from pydiskimg.boot import grub_home
from pydiskimg.protocols import Tree

log = logging.getLogger(__name__)

_ENTRIES = "/boot/loader/entries"
_BLSCFG = "/usr/lib/grub/i386-pc/blscfg.mod"
_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
_PRETTY_NAME = re.compile(r"^PRETTY_NAME=[\"']?([^\"'\n]{1,80})", re.MULTILINE)


def configure_boot(tree: Tree, place: BootPlace, *, kernel_args: str, serial_console: bool) -> bool:
    """Bring the boot configuration of a system that was built from its files up to date; False where nothing boots.

    The tree is the whole system, with its /boot in it, and the files of GRUB may be there or come later. A system
    without a kernel is told in the log. Raises StorageError and GuestError, both before anything is written but for
    errors of writing itself.
    """
    draft = Draft(tree)
    kernels = find_kernels(draft)
    if not kernels:
        log.warning("no kernel is in /boot of the system, and the instance does not boot by itself")
        return False
    wanted = wanted_arguments(kernel_args, serial_console=serial_console)
    home = grub_home(tree)
    path = f"/boot/{home}/grub.cfg"
    entries = draft.files(_ENTRIES, "*.conf")
    old = draft.read(path)
    new = None
    if old is not None:
        try:
            new = up_to_date(_text(old), place, wanted, draft.is_file, has_entries=bool(entries))
        except UnsafeConfigError as error:
            log.warning("%s: %s; it is kept as %s.old and replaced", path, error, path)
            draft.change(f"{path}.old", old, "as the old machine had it")
    if new is None:
        new = new_config(
            kernels,
            place,
            ["ro", *wanted],
            title=_title(draft),
            home=home,
            serial_console=serial_console,
            blscfg=bool(entries) and draft.is_file(_BLSCFG),
        )
    draft.change(path, new.encode("utf-8", "surrogateescape"), "GRUB's menu", mode=0o600)
    draft.write(_order)
    return True


def _order(path: str) -> int:
    """Last is what is booted by."""
    return int(path.endswith("/grub.cfg"))


def _title(draft: Draft) -> str:
    for path in _OS_RELEASE:
        found = _PRETTY_NAME.search(_text(draft.read(path) or b""))
        if found:
            return found[1]
    return ""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
