# SPDX-License-Identifier: MIT
"""Mount a guest's file systems as in its fstab: the root, and /var, /boot and others in it."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from ganeti_os.guest.mounted_volume import mounted_volume, volume_device
from ganeti_os.guest.root import Guest
from pydiskimg.errors import DiskImageError, StorageError, storage_error
from pydiskimg.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from pydiskimg.protocols import ShownDisk
from pydiskimg.volumes.find import Volume

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MountedGuest:
    """target is where the root is mounted; the devices are those of the root and of /boot (None: in the root).

    inside are the directories of the root at which the guest's other file systems are mounted, such as /var. has_efi
    tells whether its /boot/efi is mounted, if it has one.
    """

    target: str
    root_device: str
    boot_device: str | None
    inside: tuple[str, ...] = ()
    has_efi: bool = False


@contextmanager
def mounted_root(disk: ShownDisk, guest: Guest, *, programs: bool = False) -> Iterator[MountedGuest]:
    """Mount the guest's root, and its other file systems inside it, for reading and writing. Needs root.

    /boot and /boot/efi are left out. programs as for mounted().
    """
    with ExitStack() as stack:
        root_device = stack.enter_context(volume_device(disk, guest.root)).path
        target = stack.enter_context(mounted_volume(disk, root_device, guest.root, programs=programs))
        inside = _mount_inside(stack, disk, guest, root_device, target, programs=programs)
        yield MountedGuest(target, root_device, None, inside)


@contextmanager
def mounted_guest(disk: ShownDisk, guest: Guest, *, programs: bool = False) -> Iterator[MountedGuest]:
    """Mount the guest as mounted_root() does, with its /boot and /boot/efi."""
    with mounted_root(disk, guest, programs=programs) as root, ExitStack() as stack:
        boot_device = None
        if guest.boot is not None:
            boot_device = stack.enter_context(volume_device(disk, guest.boot)).path
            boot = mount_point_inside(root.target, "boot")
            stack.enter_context(mounted_volume(disk, boot_device, guest.boot, target=boot, programs=programs))
        has_efi = guest.efi is not None and _mount_efi(stack, disk, guest.efi, root.target, programs=programs)
        yield replace(root, boot_device=boot_device, has_efi=has_efi)


def _mount_inside(
    stack: ExitStack, disk: ShownDisk, guest: Guest, root_device: str, target: str, *, programs: bool
) -> tuple[str, ...]:
    """Mount the guest's file systems inside its root, which is on root_device and mounted at target.

    Return these directories. A file system that cannot be mounted is logged: files written below its mount point are
    hidden when the guest runs.
    """
    done = []
    for mount_point, volume in guest.inside:
        try:
            point = mount_point_inside(target, mount_point.lstrip("/"))
            same = volume.partition == guest.root.partition  # a subvolume of the root's file system
            device = root_device if same else stack.enter_context(volume_device(disk, volume)).path
            stack.enter_context(mounted_volume(disk, device, volume, target=point, programs=programs))
            done.append(mount_point)
        except DiskImageError as error:
            log.warning("%s of the guest is not mounted, and files written below it are hidden: %s", mount_point, error)
    return tuple(done)


def _mount_efi(stack: ExitStack, disk: ShownDisk, efi: Volume, target: str, *, programs: bool) -> bool:
    """Mount the guest's /boot/efi; if that fails, scripts run without it: few need it."""
    try:
        point = mount_point_inside(target, "boot/efi")
        device = stack.enter_context(volume_device(disk, efi)).path
        stack.enter_context(mounted_volume(disk, device, efi, target=point, programs=programs))
    except DiskImageError as error:
        log.warning("/boot/efi is not mounted: %s", error)
        return False
    return True


def mount_point_inside(target: str, path: str) -> str:
    """Return a path to a directory of the guest; the guest's symlinks cannot lead it out of the root, or to the root.

    A file system mounted over the root would be taken for the root.
    """
    with ExitStack() as closing:
        root_fd = os.open(target, os.O_PATH | os.O_DIRECTORY)
        closing.callback(os.close, root_fd)
        try:
            fd = openat2(root_fd, path, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except OSError as error:
            raise storage_error(error, f"/{path} in the guest", "cannot be a mount point") from error
        closing.callback(os.close, fd)
        if os.path.samestat(os.fstat(fd), os.fstat(root_fd)):
            text = f"/{path} in the guest: cannot be a mount point: it leads to the root itself"
            raise StorageError(text, errno=errno.ELOOP, filename=path)
        return os.readlink(f"/proc/self/fd/{fd}")
