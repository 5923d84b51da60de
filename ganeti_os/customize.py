# SPDX-License-Identifier: MIT
"""Customising an installed system, mounted for that: the overlay copied over it, then the scripts."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ganeti_os import hooks
from ganeti_os.guest.root import find_guest
from ganeti_os.guest.volume import Volume, mounted_volume, volume_device
from ganeti_os.installation import Installation
from ganeti_os.overlay import copy_overlay
from pydiskimg.errors import DiskImageError, storage_error
from pydiskimg.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from pydiskimg.loop import loop_device
from pydiskimg.targets.descriptor import DescriptorDisk
from pydiskimg.wipe import wipe_partition_table

log = logging.getLogger(__name__)


def customize_image(installation: Installation) -> None:
    """Find and mount the root of the system on the disk, its /boot in it, and customise it. Needs root."""
    disk = installation.disk
    programs = bool(installation.scripts)  # these enter the guest
    with ExitStack() as stack:
        guest = find_guest(disk)
        root_device = stack.enter_context(volume_device(disk, guest.root)).path
        target = stack.enter_context(mounted_volume(disk, root_device, guest.root, programs=programs))
        boot_device = None
        if guest.boot is not None:
            boot_device = stack.enter_context(volume_device(disk, guest.boot)).path
            boot = mount_point_inside(target, "boot")
            stack.enter_context(mounted_volume(disk, boot_device, guest.boot, target=boot, programs=programs))
        if guest.efi is not None:
            _mount_efi(stack, disk, guest.efi, target, programs=programs)
        if installation.overlay is not None:
            copy_overlay(installation.overlay, target, installation.messages)
        if installation.scripts:
            run_scripts(installation, target, root_device, boot_device)
    disk.flush()


def _mount_efi(stack: ExitStack, disk: DescriptorDisk, efi: Volume, target: str, *, programs: bool) -> None:
    """Mount the guest's /boot/efi; where it cannot be, the scripts run without it: few have anything to do there."""
    try:
        point = mount_point_inside(target, "boot/efi")
        device = stack.enter_context(volume_device(disk, efi)).path
        stack.enter_context(mounted_volume(disk, device, efi, target=point, programs=programs))
    except DiskImageError as error:
        log.warning("/boot/efi is not mounted: %s", error)


def run_scripts(installation: Installation, target: str, root_device: str, boot_device: str | None) -> None:
    """Run the scripts with target as the guest's root; a disk that is a file gets a block device for them."""
    request = installation.request
    with _block_device(installation) as blockdev:
        environment = hooks.script_environment(
            request.environment,
            installation.settings.for_scripts(),
            target=target,
            blockdev=blockdev,
            root_dev=root_device,
            boot_dev=boot_device,
        )
        hooks.run(installation.scripts, environment, target=target)


@contextmanager
def _block_device(installation: Installation) -> Iterator[str]:
    disk = installation.disk
    if stat.S_ISBLK(os.fstat(disk.fd).st_mode):
        yield disk.name
        return
    with loop_device(disk.fd, length=disk.size // disk.sector_size * disk.sector_size) as loop:
        yield loop.path


@contextmanager
def wiped_on_failure(installation: Installation) -> Iterator[None]:
    """Take the partition table away when the block fails: a system without its customisation must not be started."""
    try:
        yield
    except BaseException:
        try:
            wipe_partition_table(installation.disk)
        except DiskImageError as error:  # the first error is the one to report
            log.warning("the partition table could not be taken away: %s", error)
        raise


def mount_point_inside(target: str, path: str) -> str:
    """Return a path to a directory of the guest that no symlink of the guest's leads out of its root."""
    root_fd = os.open(target, os.O_PATH | os.O_DIRECTORY)
    try:
        fd = openat2(root_fd, path, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        raise storage_error(error, f"/{path} in the guest", "cannot be a mount point") from error
    finally:
        os.close(root_fd)
    with ExitStack() as closing:
        closing.callback(os.close, fd)
        return os.readlink(f"/proc/self/fd/{fd}")
