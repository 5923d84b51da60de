# SPDX-License-Identifier: MIT
"""Installing a tarball: partitions, file systems, the files, fstab, overlay, scripts, and the partition table last."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import ExitStack

from ganeti_os.install.boot_loader import install_boot_loader
from ganeti_os.install.customise import become_instance
from ganeti_os.install.installation import Installation
from ganeti_os.install.new_system import (
    NewSystem,
    customise_provisional,
    mount_volume,
    naming_what_is_full,
    new_system,
    without_boot,
)
from ganeti_os.install.overlay import copy_overlay
from pydiskimg.errors import ArchiveError, MountPointError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.files.tar import check_archive, extract
from pydiskimg.host.mount import enter_private_namespace
from pydiskimg.system import fstab
from pydiskimg.system.layout import fstab_entries
from pydiskimg.units import format_size

log = logging.getLogger(__name__)


def install_tarball(path: str, installation: Installation) -> None:
    """Unpack the tarball into new file systems on the disk. Needs root."""
    messages = installation.messages
    with messages.step("partitioning"):
        enter_private_namespace()  # first: reading may start a thread
        check_archive(path)
    with new_system(installation) as system, ExitStack() as mounts:
        with messages.step("unpacking"):
            target = mount_volume(mounts, installation, system.root_device)
            boot = _unpack(path, installation, system, target, mounts)
        with messages.step("writing fstab"), open_mounted_tree(target) as tree:
            if not (tree.exists("/etc") and stat.S_ISDIR(tree.stat("/etc").st_mode)):
                raise ArchiveError(f"{path}: holds no directory /etc, so it is not the root of a Linux system")
            fstab.write_entries(tree, fstab_entries(system.volumes, installation.settings.filesystem))
        if installation.overlay is not None:
            with naming_what_is_full(installation, boot=boot):
                copy_overlay(installation.overlay, target, messages)
        with open_mounted_tree(target, name=installation.disk.name) as tree:
            become_instance(installation, tree)
        install_boot_loader(installation, system, target)
        if installation.scripts:
            with messages.step("customising"):
                customise_provisional(installation, system, target)


def _unpack(path: str, installation: Installation, system: NewSystem, target: str, mounts: ExitStack) -> str | None:
    """Unpack onto the root file system, and /boot onto its own where it has one; returns where that is mounted.

    Where the tarball's /boot is a symlink, there is nothing to mount a file system on: what it leads to is packed as
    files of the root, and stays there.
    """
    if system.boot_device is not None:
        boot = os.path.join(target, "boot")
        os.mkdir(boot)
        os.chmod(boot, 0o755)  # noqa: S103 - the guest sees it where its file system is not mounted
        try:
            with ExitStack() as apart:
                mount_volume(apart, installation, system.boot_device, target=boot)
                _extract(path, target, installation, boot=boot)
                mounts.push(apart.pop_all())
                return boot
        except MountPointError as error:
            text = (
                "%s: %s is not a directory, so its files stay in the root file system; the partition of /boot is empty"
            )
            log.warning(text, path, error.entry)
            without_boot(system, installation)
    _extract(path, target, installation, boot=None)
    return None


def _extract(path: str, target: str, installation: Installation, *, boot: str | None) -> None:
    with naming_what_is_full(installation, boot=boot):
        unpacked = extract(path, target, progress=installation.messages.progress("unpacked"))
    log.info("%d entries, %s", unpacked.entries, format_size(unpacked.bytes))
    if unpacked.left_out:
        log.warning("%s: %s", path, unpacked.left_out)
