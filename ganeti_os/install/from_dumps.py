# SPDX-License-Identifier: MIT
"""dump(8)s of a root and a /boot become a disk: partitions, file systems, their files, fstab, the boot loader."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from itertools import chain
from typing import Protocol

from ganeti_os.guest.machine_ids import forget_network_cards
from ganeti_os.guest.mounted_guest import mount_point_inside
from ganeti_os.install.boot_loader import install_boot_loader
from ganeti_os.install.customise import become_instance
from ganeti_os.install.image_file import ImageFile
from ganeti_os.install.installation import Installation
from ganeti_os.install.new_system import (
    NewSystem,
    customise_provisional,
    full,
    mount_volume,
    new_system,
    without_boot,
)
from ganeti_os.install.overlay import copy_overlay
from pydiskimg.errors import InvalidImageError, StorageError, storage_error
from pydiskimg.files.dump import DumpReader, open_dump, restore_dump
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.files.tree import Tree
from pydiskimg.system import fstab
from pydiskimg.system.files.draft import Draft
from pydiskimg.system.layout import NewUuids, fstab_entries
from pydiskimg.units import format_size

log = logging.getLogger(__name__)

ROOT, BOOT = "root", "boot"


class DumpFile(Protocol):
    """A dump that is read from front to back; name is for messages."""

    name: str

    def read(self, length: int) -> bytes:
        """Return the next bytes, length at most; none at the end."""


def install_dumps(image: ImageFile, installation: Installation) -> None:
    """Restore an image that is a dump of a root, and one of a /boot where the kernel is inside."""
    with ExitStack() as stack:
        files = [(ROOT, _StoredDump(stack, image.path))]
        if image.boot_path is not None:
            files.append((BOOT, _StoredDump(stack, image.boot_path)))
        restore_dumps(files, installation)


def restore_dumps(dumps: Iterable[tuple[str, DumpFile]], installation: Installation) -> None:
    """Restore the dumps, each ROOT or BOOT, in the order in which they come, the partition table last. Needs root.

    /boot gets its partition as in every new installation: when the kernel is inside.
    """
    messages = installation.messages
    with closing(_readers(dumps)) as readers:
        first = next(readers, None)
        if first is None:
            raise InvalidImageError("the backup has no dump; expected root.dump")
        with new_system(installation) as made, ExitStack() as mounts:
            with messages.step("restoring"), ExitStack() as apart:
                target = mount_volume(mounts, installation, made.root_device)
                directories = {ROOT: target}
                if made.boot_device is not None:
                    directories[BOOT] = mount_volume(apart, installation, made.boot_device)
                restored = _restore(chain([first], readers), directories, installation)
            if made.boot_device is not None and BOOT not in restored:
                log.warning("there is no dump of /boot, which stays in the root file system; its partition is empty")
                without_boot(made, installation)
            with messages.step("writing fstab"), open_mounted_tree(target) as tree:
                _adapt(tree, made.volumes, installation.settings.filesystem)
            with messages.step("customising"):
                _customise(installation, made, target)


def _readers(dumps: Iterable[tuple[str, DumpFile]]) -> Generator[tuple[str, DumpReader], None, None]:
    """Begin to read each dump when it is its turn; the first one's turn is before anything is written."""
    for which, file in dumps:
        with open_dump(file, file.name) as reader:
            yield which, reader


def _restore(
    readers: Iterable[tuple[str, DumpReader]], directories: dict[str, str], installation: Installation
) -> set[str]:
    """Restore each dump into its directory; returns which there were."""
    restored: set[str] = set()
    for which, reader in readers:
        if which in restored:
            raise InvalidImageError(f"{reader.name}: is the second dump of {which}; expected one of each")
        if which not in directories:
            log.warning("%s is not restored: the instance boots a kernel of the node, and has no /boot", reader.name)
            continue
        _restore_one(which, reader, directories[which], installation)
        restored.add(which)
    if ROOT not in restored:
        raise InvalidImageError("the backup has no dump of the root file system; expected root.dump")
    return restored


def _restore_one(which: str, reader: DumpReader, directory: str, installation: Installation) -> None:
    progress = installation.messages.progress(f"{which} restored")
    try:
        done = restore_dump(reader, directory, progress=progress)
    except StorageError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise full(error, installation, is_boot=which == BOOT) from error
    log.info("%s: %d files and %d directories, %s", reader.name, done.files, done.directories, format_size(done.bytes))
    if done.attributes_left_out:
        log.warning("%s: %s", reader.name, done.attributes_left_out)


def _customise(installation: Installation, system: NewSystem, target: str) -> None:
    with ExitStack() as mounts:
        if system.boot_device is not None:
            boot = mount_point_inside(target, "boot")
            mount_volume(mounts, installation, system.boot_device, target=boot)
        if installation.overlay is not None:
            copy_overlay(installation.overlay, target, installation.messages)
        with open_mounted_tree(target, name=installation.disk.name) as tree:
            become_instance(installation, tree)
        install_boot_loader(installation, system, target)
        if installation.scripts:
            customise_provisional(installation, system, target)


class _StoredDump:
    """A dump that is a file of the node; the stack closes it."""

    def __init__(self, stack: ExitStack, path: str) -> None:
        self.name = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise storage_error(error, path, "cannot open the dump") from error
        stack.callback(os.close, self._fd)

    def read(self, length: int) -> bytes:
        """Return the next bytes, length at most; none at the end."""
        return os.read(self._fd, length)


def _adapt(tree: Tree, volumes: NewUuids, filesystem: str) -> None:
    """Let the system find its new file systems, and forget the old machine's network cards."""
    fstab.write_entries(tree, fstab_entries(volumes, filesystem))
    draft = Draft(tree)
    forget_network_cards(draft)
    draft.write(lambda _: 0)
