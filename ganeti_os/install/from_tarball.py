# SPDX-License-Identifier: MIT
"""Install a tarball: partitions, file systems filled from it, fstab, scripts, and the partition table last."""

from __future__ import annotations

import logging
import stat

from ganeti_os.install.boot_loader import install_boot_loader
from ganeti_os.install.customise import become_instance
from ganeti_os.install.installation import Installation
from ganeti_os.install.new_system import (
    NewSystem,
    customise_provisional,
    new_system,
    opened_system,
    prepare_scripts,
    without_boot,
)
from ganeti_os.install.overlay import add_overlay, overlay_brings
from pydiskimg.errors import ArchiveError, MountPointError
from pydiskimg.files.tar import check_archive, open_tar
from pydiskimg.files.tree import ReadableTree
from pydiskimg.files.writer import Wording
from pydiskimg.fs.ext4.populate.filling import Filling
from pydiskimg.system import fstab
from pydiskimg.system.layout import fstab_entries
from pydiskimg.units import format_size

log = logging.getLogger(__name__)


def install_tarball(path: str, installation: Installation) -> None:
    """Make file systems with the files of a tarball on the disk. Root is needed only for customisation scripts."""
    messages = installation.messages
    with messages.step("partitioning"):
        prepare_scripts(installation)
        check_archive(path)
    with new_system(installation) as system:
        with messages.step("unpacking"):
            filling = _unpacked(path, installation, system)
            _require_system(path, filling.tree)
        if installation.overlay is not None:
            add_overlay(installation.overlay, filling, messages, hints=system.hints)
        with messages.step("completing the file systems"):
            filling.complete()
        with opened_system(system) as tree:
            if not overlay_brings(installation.overlay, fstab.PATH):
                with messages.step("writing fstab"):
                    fstab.write_entries(tree, fstab_entries(system.volumes, installation.settings.filesystem))
            become_instance(installation, tree)
            install_boot_loader(installation, system, tree)
        if installation.scripts:
            customise_provisional(installation, system)


def _unpacked(path: str, installation: Installation, system: NewSystem) -> Filling:
    """Unpack into the root file system, and /boot into its own if it has one.

    If the tarball's /boot is a symlink, a file system cannot be mounted there: its target is packed as files of the
    root, and stays there.
    """
    filling = system.filling(installation)
    if system.boot is not None:
        filling.join("/boot")
        try:
            _unpack(path, installation, system, filling)
            return filling
        except MountPointError as error:
            text = (
                "%s: %s is not a directory, so its files stay in the root file system; the partition of /boot is empty"
            )
            log.warning(text, path, error.entry)
            filling = system.filling(installation)
            without_boot(system, installation)
    _unpack(path, installation, system, filling)
    return filling


def _unpack(path: str, installation: Installation, system: NewSystem, filling: Filling) -> None:
    with open_tar(path, progress=installation.messages.progress("unpacked")) as entries:
        unpacked = filling.add(entries, wording=Wording(path, hints=system.hints))
    log.info("%d entries, %s", unpacked.entries, format_size(unpacked.bytes))
    if unpacked.left_out:
        log.warning("%s: %s", path, unpacked.left_out)


def _require_system(path: str, tree: ReadableTree) -> None:
    if not (tree.exists("/etc") and stat.S_ISDIR(tree.stat("/etc").st_mode)):
        raise ArchiveError(f"{path}: has no directory /etc, so it is not the root of a Linux system")
