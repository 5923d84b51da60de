# SPDX-License-Identifier: MIT
"""Installing a tarball: partitions, file systems, the files, fstab, overlay, scripts, and the partition table last."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import ExitStack

from ganeti_os.customize import run_scripts
from ganeti_os.guest import fstab
from ganeti_os.installation import Installation
from ganeti_os.overlay import copy_overlay
from ganeti_os.volumes import fstab_entries, make_volumes, mount_volume, partition_loop, plan_layout
from pydiskimg.archive import check_archive, extract
from pydiskimg.errors import ArchiveError
from pydiskimg.fs.swap import check_swap
from pydiskimg.mount import enter_private_namespace
from pydiskimg.tree import open_tree
from pydiskimg.units import format_size
from pydiskimg.wipe import wipe_partition_table

log = logging.getLogger(__name__)


def install_tarball(path: str, installation: Installation) -> None:
    """Unpack the tarball into new file systems on the disk. Needs root."""
    messages, disk = installation.messages, installation.disk
    with messages.step("partitioning"):
        enter_private_namespace()
        check_archive(path)
        layout = plan_layout(installation)
        if installation.swap is not None:
            check_swap(installation.swap)
        wipe_partition_table(disk)
    with messages.step("making file systems"):
        volumes = make_volumes(layout, installation)
    with ExitStack() as stack:
        root_device = stack.enter_context(partition_loop(installation, layout.root)).path
        boot_device = stack.enter_context(partition_loop(installation, layout.boot)).path if layout.boot else None
        with messages.step("unpacking"):
            target = mount_volume(stack, installation, root_device)
            if boot_device is not None:
                boot = os.path.join(target, "boot")
                os.mkdir(boot, 0o755)
                mount_volume(stack, installation, boot_device, target=boot)
            unpacked = extract(path, target, progress=messages.progress("unpacked"))
            log.info("%d entries, %s", unpacked.entries, format_size(unpacked.bytes))
        with messages.step("writing fstab"), open_tree(target) as tree:
            if not (tree.exists("/etc") and stat.S_ISDIR(tree.stat("/etc").st_mode)):
                raise ArchiveError(f"{path}: holds no directory /etc, so it is not the root of a Linux system")
            fstab.write_entries(tree, fstab_entries(volumes, installation.settings.filesystem))
        if installation.overlay is not None:
            copy_overlay(installation.overlay, target, messages)
        if installation.scripts:
            with messages.step("customising"):
                # Boot loaders want a table; this one has every place and nothing that boots or mounts by it.
                layout.table.write(disk, unfinished=True)
                run_scripts(installation, target, root_device, boot_device)
    with messages.step("writing the partition table"):
        disk.flush()
        layout.table.write(disk)
