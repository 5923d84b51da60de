# SPDX-License-Identifier: MIT
"""A guest's files to be changed: an ext is read and written here, what is not is mounted where that is allowed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ganeti_os.guest.mounted_guest import mounted_guest, mounted_root
from ganeti_os.guest.root import Guest, LeftAloneError, is_ext
from pydiskimg.disks.region import Region
from pydiskimg.errors import DiskImageError, FileSystemError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.files.tree import Tree
from pydiskimg.fs.ext4.change.joined import JoinedTree
from pydiskimg.fs.ext4.change.tree import ChangedTree, open_changed_tree
from pydiskimg.protocols import ShownDisk
from pydiskimg.volumes.find import Volume

log = logging.getLogger(__name__)

# Some systems have GRUB's files on /boot/efi, and links to them here.
_LINKS_OF_GRUB = tuple(f"/boot/{home}/{name}" for home in ("grub", "grub2") for name in ("grub.cfg", "grubenv"))


@dataclass(frozen=True, slots=True)
class OpenedGuest:
    """The guest's files from its root on; inside are the directories that other file systems of it lie over.

    target is where the root is mounted; None where nothing is, and the tree takes entries.
    """

    tree: Tree
    inside: tuple[str, ...] = ()
    target: str | None = None


@contextmanager
def opened_guest(
    disk: ShownDisk, guest: Guest, *, with_boot: bool = True, may_mount: bool = True, at_once: bool = True
) -> Iterator[OpenedGuest]:
    """Open the guest's root, and what it has over directories of it, for reading and writing.

    What is changed on an ext with a journal comes into force when the context ends, all of it or none, the root last;
    without at_once, which is for more than a journal holds, each change when it is made.
    The guest is mounted, which needs root, where one of these is not an ext that is changed here. Where it may not be,
    LeftAloneError is raised for the root, and a warning logged for others.
    """
    with ExitStack() as stack:
        opened = _opened(stack, disk, guest, with_boot=with_boot, may_mount=may_mount, at_once=at_once)
        if opened is not None:
            yield opened
            return
    mount = mounted_guest if with_boot else mounted_root
    name = f"{disk.name}, {guest.root.location}"
    with mount(disk, guest) as mounted, open_mounted_tree(mounted.target, name=name) as tree:
        yield OpenedGuest(tree, mounted.inside, mounted.target)


def _opened(
    stack: ExitStack, disk: ShownDisk, guest: Guest, *, with_boot: bool, may_mount: bool, at_once: bool
) -> OpenedGuest | None:
    """Open the guest without the kernel; None where it has to be mounted, and may be."""
    if may_mount and not guest.is_ext:
        return None
    try:
        root = _changed(stack, disk, guest.root, at_once=at_once)
    except FileSystemError as error:
        if may_mount:
            log.info("%s; it is mounted", error)
            return None
        raise LeftAloneError(
            f"{error}; GUEST_MOUNT=no, so that it is not mounted either, and stays as it is"
        ) from error
    over = [*guest.inside, *([("/boot", guest.boot)] if with_boot and guest.boot is not None else [])]
    joined, done = JoinedTree(root), []
    for point, volume in over:
        try:
            if not is_ext(volume):
                raise FileSystemError(f"{disk.name}, {volume.location}: GUEST_MOUNT=no, and it is not an ext")
            joined.join(point, _changed(stack, disk, volume, at_once=at_once))
            done.append(point)
        except DiskImageError as error:
            if may_mount and isinstance(error, FileSystemError):
                log.info("%s; it is mounted", error)
                return None
            log.warning("%s of the guest is left alone, and what is written below it is hidden: %s", point, error)
    tree: Tree = joined if done else root
    if may_mount and with_boot and guest.efi is not None and any(_is_dangling(tree, path) for path in _LINKS_OF_GRUB):
        return None
    return OpenedGuest(tree, tuple(point for point in done if point != "/boot"))


def _changed(stack: ExitStack, disk: ShownDisk, volume: Volume, *, at_once: bool) -> ChangedTree:
    """Open an ext; at once, with a journal, everything that is changed in it comes into force when stack ends."""
    partition = volume.partition
    region = Region(disk, partition.start, partition.length, name=f"{disk.name}, {volume.location}")
    tree = stack.enter_context(open_changed_tree(region))
    if at_once and tree.files.fs.superblock.journal_inode:
        stack.enter_context(tree.together())
    return tree


def _is_dangling(tree: Tree, path: str) -> bool:
    """Tell whether path is a symlink that leads to nothing."""
    try:
        tree.stat(path, follow_symlinks=False)
    except (FileNotFoundError, DiskImageError):
        return False
    return not tree.exists(path)
