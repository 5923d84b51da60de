# SPDX-License-Identifier: MIT
"""Open a guest's files for changes: an ext is read and written directly, others are mounted if that is allowed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ganeti_os.guest.mounted_guest import mounted_guest, mounted_root
from ganeti_os.guest.root import Guest, LeftAloneError
from pydiskimg.disks.read_only import ReadOnlyDisk
from pydiskimg.errors import DiskImageError, FileSystemError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.files.tree import ReadableTree, Tree
from pydiskimg.fs.ext4.change.joined import JoinedTree
from pydiskimg.fs.ext4.change.tree import ChangedTree, open_changed_tree
from pydiskimg.protocols import Disk, ShownDisk, Source
from pydiskimg.regions.region import Region
from pydiskimg.volumes.find import Volume

log = logging.getLogger(__name__)

# Some systems have GRUB's files on /boot/efi, and links to them here.
_LINKS_OF_GRUB = tuple(f"/boot/{home}/{name}" for home in ("grub", "grub2") for name in ("grub.cfg", "grubenv"))


@dataclass(frozen=True, slots=True)
class OpenedGuest:
    """The guest's files from its root on; inside are the mount points of its other file systems.

    target is where the root is mounted; None if nothing is mounted and the tree accepts entries. has_efi tells whether
    /boot/efi is in the tree, if the guest has one.
    """

    tree: Tree
    inside: tuple[str, ...] = ()
    target: str | None = None
    has_efi: bool = False


def opens_mounted(source: Source, guest: Guest, *, needs_efi: Callable[[ReadableTree], bool]) -> bool:
    """True if opened_guest() would mount the guest of a disk with the contents of source; nothing is logged."""
    way = _Way(needs_efi=needs_efi, at_once=False, is_silent=True)
    with ExitStack() as stack:
        return _opened(stack, ReadOnlyDisk(source), guest, way) is None


@contextmanager
def opened_guest(
    disk: ShownDisk,
    guest: Guest,
    *,
    with_boot: bool = True,
    may_mount: bool = True,
    at_once: bool = True,
    needs_efi: Callable[[ReadableTree], bool] = lambda _tree: False,
) -> Iterator[OpenedGuest]:
    """Open the guest's root, and its file systems inside it, for reading and writing.

    With at_once, all changes on an ext with a journal take effect together when the context ends, the root's last;
    without it (for more changes than a journal can hold), each one immediately. The guest is mounted, which needs root,
    if one of its file systems is not an ext that can be changed here, or if needs_efi() says that their files need
    /boot/efi. If mounting is not allowed, LeftAloneError is raised for the root, and a warning logged for others.
    """
    way = _Way(with_boot=with_boot, may_mount=may_mount, at_once=at_once, needs_efi=needs_efi)
    with ExitStack() as stack:
        opened = _opened(stack, disk, guest, way)
        if opened is not None:
            yield opened
            return
    mount = mounted_guest if with_boot else mounted_root
    name = f"{disk.name}, {guest.root.location}"
    with mount(disk, guest) as mounted, open_mounted_tree(mounted.target, name=name) as tree:
        yield OpenedGuest(tree, mounted.inside, mounted.target, mounted.has_efi)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How a guest is opened."""

    with_boot: bool = True
    may_mount: bool = True
    at_once: bool
    needs_efi: Callable[[ReadableTree], bool]
    is_silent: bool = False

    def tell(self, level: int, text: str, *arguments: object) -> None:
        log.log(logging.DEBUG if self.is_silent else level, text, *arguments)


def _opened(stack: ExitStack, disk: Disk, guest: Guest, way: _Way) -> OpenedGuest | None:
    """Open the guest without the kernel; None if it must be mounted, and may be."""
    if way.may_mount and not guest.is_ext:
        return None
    try:
        root = _changed(stack, disk, guest.root, at_once=way.at_once)
    except FileSystemError as error:
        if way.may_mount:
            way.tell(logging.INFO, "%s; it is mounted", error)
            return None
        raise LeftAloneError(f"{error}; GUEST_MOUNT=no, so it is not mounted either, and not changed") from error
    over = [*guest.inside, *([("/boot", guest.boot)] if way.with_boot and guest.boot is not None else [])]
    joined, done = JoinedTree(root), []
    for point, volume in over:
        try:
            if not volume.is_ext:
                raise FileSystemError(f"{disk.name}, {volume.location}: GUEST_MOUNT=no, and it is not an ext")
            joined.join(point, _changed(stack, disk, volume, at_once=way.at_once))
            done.append(point)
        except DiskImageError as error:
            if way.may_mount and isinstance(error, FileSystemError):
                way.tell(logging.INFO, "%s; it is mounted", error)
                return None
            text = "%s of the guest is left alone, and files written below it are hidden: %s"
            way.tell(logging.WARNING, text, point, error)
    tree: Tree = joined if done else root
    if way.may_mount and way.with_boot and guest.efi is not None and _needs_efi(tree, way):
        return None
    return OpenedGuest(tree, tuple(point for point in done if point != "/boot"))


def _needs_efi(tree: Tree, way: _Way) -> bool:
    return any(_is_dangling(tree, path) for path in _LINKS_OF_GRUB) or way.needs_efi(tree)


def _changed(stack: ExitStack, disk: Disk, volume: Volume, *, at_once: bool) -> ChangedTree:
    """Open an ext; with at_once and a journal, all its changes take effect when stack ends."""
    partition = volume.partition
    region = Region(disk, partition.start, partition.length, name=f"{disk.name}, {volume.location}")
    tree = stack.enter_context(open_changed_tree(region))
    if at_once and tree.files.fs.superblock.journal_inode:
        stack.enter_context(tree.together())
    return tree


def _is_dangling(tree: Tree, path: str) -> bool:
    """True if path is a broken symlink."""
    try:
        tree.stat(path, follow_symlinks=False)
    except (FileNotFoundError, DiskImageError):
        return False
    return not tree.exists(path)
