# SPDX-License-Identifier: MIT
"""Installing a tarball: partitions, file systems, the files, fstab, overlay, scripts, and the partition table last."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import ExitStack

from ganeti_os.guest import fstab
from ganeti_os.installation import Installation
from ganeti_os.overlay import copy_overlay
from ganeti_os.volumes import customise_unfinished, fstab_entries, mount_volume, new_system
from pydiskimg.archive import check_archive, extract
from pydiskimg.errors import ArchiveError
from pydiskimg.mount import enter_private_namespace
from pydiskimg.tree import open_tree
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
            if system.boot_device is not None:
                boot = os.path.join(target, "boot")
                os.mkdir(boot, 0o755)
                mount_volume(mounts, installation, system.boot_device, target=boot)
            unpacked = extract(path, target, progress=messages.progress("unpacked"))
            log.info("%d entries, %s", unpacked.entries, format_size(unpacked.bytes))
        with messages.step("writing fstab"), open_tree(target) as tree:
            if not (tree.exists("/etc") and stat.S_ISDIR(tree.stat("/etc").st_mode)):
                raise ArchiveError(f"{path}: holds no directory /etc, so it is not the root of a Linux system")
            fstab.write_entries(tree, fstab_entries(system.volumes, installation.settings.filesystem))
        if installation.overlay is not None:
            copy_overlay(installation.overlay, target, messages)
        if installation.scripts:
            with messages.step("customising"):
                customise_unfinished(installation, system, target)
