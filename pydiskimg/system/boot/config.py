# SPDX-License-Identifier: MIT
"""The configuration that a guest's boot loader reads (grub.cfg, BLS entries), and the settings it is generated from."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import partial

from pydiskimg.boot import grub_home
from pydiskimg.errors import StorageError
from pydiskimg.files.tree import Tree
from pydiskimg.system.boot.entries import (
    change_entries,
    change_environment,
    change_extlinux,
    change_kernel_command_line,
)
from pydiskimg.system.boot.grub_cfg import UnsafeConfigError, new_arguments, new_config, up_to_date, with_arguments
from pydiskimg.system.boot.grub_debconf import forget_grub_devices
from pydiskimg.system.boot.grub_defaults import change_defaults, plain_arguments
from pydiskimg.system.boot.kernel_arguments import (
    grub_word,
    only_plain,
    wanted_arguments,
    with_words,
    without_old_machine,
)
from pydiskimg.system.boot.kernels import Kernel, find_kernels
from pydiskimg.system.boot.volumes import BootVolumes
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.text import decoded, encoded

log = logging.getLogger(__name__)

_HOMES = ("grub", "grub2")
_BLSCFG = "/usr/lib/grub/i386-pc/blscfg.mod"
_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
_PRETTY_NAME = re.compile(r"^PRETTY_NAME=[\"']?([^\"'\n]{1,80})", re.MULTILINE)
_WHAT = "GRUB's menu"


def configure_boot(tree: Tree, boot: BootVolumes, *, kernel_args: str, serial_console: bool) -> bool:
    """Update the boot configuration of a system that was built from its files; return False if the system does not
    boot.

    The tree is the whole system, including its /boot; the files of GRUB may exist or be added later. A system without a
    kernel is logged. Raises StorageError and GuestError, before the first write unless writing fails.
    """
    draft = Draft(tree)
    kernels = find_kernels(draft)
    if not kernels:
        log.warning("/boot: the system has no kernel there and cannot boot by itself; add one to the image")
        return False
    wanted = wanted_arguments(kernel_args, serial_console=serial_console)
    home = grub_home(tree)
    change = partial(new_arguments, boot=boot, wanted=wanted)
    change_defaults(draft, wanted, serial_console=serial_console, is_moved=True)
    entries = change_entries(draft, change, boot)
    change_environment(draft, home, partial(new_arguments, boot=boot, wanted=only_plain(wanted)))
    change_kernel_command_line(draft, change)
    forget_grub_devices(draft)
    path = f"/boot/{home}/grub.cfg"
    text = _brought_up_to_date(draft, path, boot, wanted, kernels, has_entries=bool(entries))
    if text is None:
        text = new_config(
            kernels,
            boot,
            _new_arguments(draft, wanted),
            title=_title(draft),
            home=home,
            serial_console=serial_console,
            blscfg=bool(entries) and draft.is_file(_BLSCFG),
        )
    draft.change(path, encoded(text), _WHAT, mode=0o600)
    _tell_of(kernels[0], boot)
    draft.write(_order)
    return True


def add_kernel_arguments(draft: Draft, *, kernel_args: str, serial_console: bool) -> None:
    """Add the arguments that the settings want to the kernels of a disk image, which boots by itself."""
    wanted = wanted_arguments(kernel_args, serial_console=serial_console)
    if not wanted:
        return
    change = partial(with_words, wanted=[grub_word(word) for word in wanted])
    change_defaults(draft, wanted, serial_console=serial_console, is_moved=False)
    change_entries(draft, change)
    change_kernel_command_line(draft, change)
    change_extlinux(draft, partial(with_words, wanted=wanted))
    for home in _HOMES:
        change_environment(draft, home, partial(with_words, wanted=only_plain(wanted)))
        path = f"/boot/{home}/grub.cfg"
        old = draft.read(path)
        if old is not None:
            new = with_arguments(decoded(old), wanted)
            draft.change(path, encoded(new), "arguments of the kernel")


def _brought_up_to_date(
    draft: Draft,
    path: str,
    boot: BootVolumes,
    wanted: Sequence[str],
    kernels: Sequence[Kernel],
    *,
    has_entries: bool,
) -> str | None:
    """Return the old machine's grub.cfg adapted to this one; None if there is none, or it cannot be adapted."""
    old = draft.read(path)
    if old is None or not old.strip():
        return None

    def is_file(name: str) -> bool:
        try:
            return draft.is_file(name)
        except StorageError:  # a name that is too long, a symlink to itself
            return False

    try:
        return up_to_date(decoded(old), boot, wanted, is_file, kernels, has_entries=has_entries)
    except UnsafeConfigError as error:
        log.warning("%s: %s; it is kept as grub.cfg.old and replaced", path, error)
        draft.change(f"{path}.old", old, "as the old machine had it", mode=0o600)
        return None


def _new_arguments(draft: Draft, wanted: Sequence[str]) -> list[str]:
    """Return the arguments for a new grub.cfg: those that update-grub will write, if they are plain text."""
    own = without_old_machine(plain_arguments(draft))
    own = [word for word in own if word not in wanted]
    return ["ro", *own, *(grub_word(word) for word in wanted)]


def _tell_of(kernel: Kernel, boot: BootVolumes) -> None:
    if kernel.initrd is None and boot.root_partuuid is None:
        log.warning("%s has no initial RAM disk, and can find its root by UUID only with one", kernel.path)
    log.info("%s: the kernel that the system boots", kernel.path)


def _order(path: str) -> int:
    """Write grub.cfg last: until then the system boots as before."""
    return int(path.endswith("/grub.cfg"))


def _title(draft: Draft) -> str:
    for path in _OS_RELEASE:
        found = _PRETTY_NAME.search(decoded(draft.read(path) or b""))
        if found:
            return found[1]
    return ""
