# SPDX-License-Identifier: MIT
"""dump(8)s of a root and a /boot become a disk: partitions, file systems, their files, fstab, the boot loader."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import Protocol

from pydiskimg.dumpfile import open_dump, restore_dump

from ganeti_os.customize import mount_point_inside, run_scripts
from ganeti_os.guest import fstab
from ganeti_os.installation import Installation
from ganeti_os.volumes import Volumes, fstab_entries, make_volumes, mount_volume, partition_loop, plan_layout
from pydiskimg.errors import InvalidImageError
from pydiskimg.fs.swap import check_swap
from pydiskimg.mount import enter_private_namespace
from pydiskimg.protocols import Tree
from pydiskimg.tree import open_tree
from pydiskimg.wipe import wipe_partition_table

log = logging.getLogger(__name__)

ROOT, BOOT = "root", "boot"
_UDEV_RULES = "/etc/udev/rules.d"
# Rules that give the MAC addresses of another machine's interfaces their names.
_PERSISTENT_NET = re.compile(r"z.*_persistent-net\.rules")


class DumpFile(Protocol):
    """A dump that is read from front to back; name is for messages."""

    name: str

    def read(self, length: int) -> bytes:
        """Return the next bytes, length at most; none at the end."""


def restore_dumps(dumps: Iterable[tuple[str, DumpFile]], installation: Installation) -> None:
    """Restore the dumps, each ROOT or BOOT, in the order in which they come, the partition table last. Needs root.

    /boot gets its partition as in a new installation: when the kernel is inside.
    """
    messages, disk = installation.messages, installation.disk
    with messages.step("partitioning"):
        enter_private_namespace()
        layout = plan_layout(installation)
        if installation.swap is not None:
            check_swap(installation.swap)
        wipe_partition_table(disk)
    with messages.step("making file systems"):
        volumes = make_volumes(layout, installation)
    with ExitStack() as stack:
        root_device = stack.enter_context(partition_loop(installation, layout.root)).path
        boot_device = stack.enter_context(partition_loop(installation, layout.boot)).path if layout.boot else None
        with messages.step("restoring"), ExitStack() as apart:
            target = mount_volume(stack, installation, root_device)
            places = {ROOT: target}
            if boot_device is not None:
                places[BOOT] = mount_volume(apart, installation, boot_device)
            restored = _restore(dumps, places, installation)
        if boot_device is not None and BOOT not in restored:
            log.warning("there is no dump of /boot, which stays in the root file system; partition 1 is empty")
            volumes, boot_device = replace(volumes, boot=None), None
        with messages.step("writing fstab"), open_tree(target) as tree:
            _adapt(tree, volumes, installation.settings.filesystem)
        if installation.scripts:
            with messages.step("customising"), ExitStack() as mounted_boot:
                if boot_device is not None:
                    inside = mount_point_inside(target, "boot")
                    mount_volume(mounted_boot, installation, boot_device, target=inside)
                layout.table.write(disk, unfinished=True)
                run_scripts(installation, target, root_device, boot_device)
    with messages.step("writing the partition table"):
        disk.flush()
        layout.table.write(disk)


def _restore(dumps: Iterable[tuple[str, DumpFile]], places: dict[str, str], installation: Installation) -> set[str]:
    """Restore each dump into its place; returns which there were."""
    restored: set[str] = set()
    for which, file in dumps:
        if which in restored:
            raise InvalidImageError(f"{file.name}: is the second dump of {which}; expected one of each")
        if which not in places:
            log.warning("%s is not restored: the instance boots a kernel of the node, and has no /boot", file.name)
            continue
        reader = open_dump(file, file.name)
        restore_dump(reader, places[which], progress=installation.messages.progress(f"{which} restored"))
        restored.add(which)
    if ROOT not in restored:
        raise InvalidImageError("the backup has no dump of the root file system; expected root.dump")
    return restored


def _adapt(tree: Tree, volumes: Volumes, filesystem: str) -> None:
    """Let the system find its new file systems, and forget the old machine's network cards."""
    fstab.write_entries(tree, fstab_entries(volumes, filesystem))
    if not tree.exists(_UDEV_RULES):
        return
    for name in tree.list(_UDEV_RULES):
        if _PERSISTENT_NET.fullmatch(name):
            tree.write(f"{_UDEV_RULES}/{name}", b"")
            log.info("%s/%s is emptied: it names network cards by their old addresses", _UDEV_RULES, name)
