# SPDX-License-Identifier: MIT
"""Customise an installed system: copy the overlay over it, set the instance's identity, run the scripts."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ganeti_os.guest.cloud_init import needs_seed_volume
from ganeti_os.guest.facts.instance import instance_facts
from ganeti_os.guest.instance import make_instance
from ganeti_os.guest.mounted_guest import mounted_guest
from ganeti_os.guest.opened_guest import OpenedGuest, opened_guest, opens_mounted
from ganeti_os.guest.root import Guest, NoRootError, find_guest, read_guest
from ganeti_os.install import scripts
from ganeti_os.install.installation import Installation, require_mounting
from ganeti_os.install.step_environment import steps_environment
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.files.tree import ReadableTree, Tree
from pydiskimg.fs.ext4.change.joined import JoinedTree
from pydiskimg.fs.ext4.change.tree import ChangedTree
from pydiskimg.host.loop import loop_device
from pydiskimg.protocols import ShownDisk, Source

log = logging.getLogger(__name__)

_EFI = "/boot/efi"


def customise_image(installation: Installation, disk: ShownDisk) -> bool:
    """Find the system on the disk, make it the instance, and customise it.

    Scripts, and file systems other than ext, need root: they are mounted, unless GUEST_MOUNT=no. disk is the
    installation's, or the one that holds its beginning back; scripts see the installation's. A disk without a Linux
    system is not changed if only its identity was to be set, or with GUEST_MOUNT=no. Return False if the system's
    cloud-init will not see the instance's name and network.
    """
    may_mount = installation.settings.guest_mount
    try:
        guest = find_guest(disk, may_mount=may_mount)
        hidden = (_customise_mounted if installation.scripts else _customise_opened)(installation, disk, guest)
    except NoRootError as error:
        if installation.is_customised and may_mount:
            raise
        left = ", and the overlay is not copied" if installation.overlay else ""
        log.warning("name, network and keys stay those of the image%s: %s", left, error)
        return False
    disk.flush()
    return not hidden


def require_right_to_mount(installation: Installation, source: Source, hint: str) -> None:
    """Refuse a disk with the contents of source, before the first write, if it must be mounted and cannot be."""
    if _needs_mounting(installation, source):
        require_mounting(hint)


def _needs_mounting(installation: Installation, source: Source) -> bool:
    if installation.scripts or not installation.settings.guest_mount:
        return bool(installation.scripts)
    guest, has_others = read_guest(source)
    if guest is None:
        return has_others
    return opens_mounted(source, guest, needs_efi=_needs_efi(installation))


def _needs_efi(installation: Installation) -> Callable[[ReadableTree], bool]:
    """Return a function that tells whether the overlay has files for a guest's /boot/efi, which is a FAT."""
    if installation.overlay is None:
        return lambda _tree: False
    from ganeti_os.install.overlay import reached_by  # imported here: few installations have one

    return lambda tree: bool(reached_by(installation.overlay or "", tree, [_EFI]))


def _customise_opened(installation: Installation, disk: ShownDisk, guest: Guest) -> bool:
    """Copy the overlay and then set the identity, as one change; True if a seed will not be seen.

    An overlay may be larger than a journal. The disk does not boot yet, because its beginning is missing.
    """
    may_mount = installation.settings.guest_mount
    if installation.overlay is not None:
        needs_efi = _needs_efi(installation)
        with opened_guest(disk, guest, may_mount=may_mount, at_once=False, needs_efi=needs_efi) as opened:
            _bring_overlay(installation, installation.overlay, guest, opened)
            if opened.target is not None:
                return _becomes_instance(installation, opened)
    with opened_guest(disk, guest, may_mount=may_mount) as opened:
        return _becomes_instance(installation, opened)


def _customise_mounted(installation: Installation, disk: ShownDisk, guest: Guest) -> bool:
    """Mount the guest, for the administrator's scripts; True if a seed in it will not be seen."""
    with mounted_guest(disk, guest, programs=True) as mounted:
        with open_mounted_tree(mounted.target, name=installation.disk.name) as tree:
            opened = OpenedGuest(tree, mounted.inside, mounted.target, mounted.has_efi)
            if installation.overlay is not None:
                _bring_overlay(installation, installation.overlay, guest, opened)
            hidden = _becomes_instance(installation, opened)
        run_scripts(installation, mounted.target, mounted.root_device, mounted.boot_device)
    return hidden


def _bring_overlay(installation: Installation, overlay: str, guest: Guest, opened: OpenedGuest) -> None:
    """Copy the overlay into the guest, and warn of files in it that the guest will not see."""
    # imported here: few installations have one
    from ganeti_os.install.overlay import copy_overlay, put_overlay, reached_by

    left = [_EFI] if guest.efi is not None and not opened.has_efi else []
    may_mount = installation.settings.guest_mount
    for point in reached_by(overlay, opened.tree, [*left, *guest.closed]):
        is_forbidden = point in left and not may_mount
        why = "GUEST_MOUNT=no" if is_forbidden else "the file system that its fstab mounts there is not opened"
        log.warning("%s of the guest is left alone (%s), and the overlay's files there are hidden", point, why)
    if opened.target is not None:
        copy_overlay(overlay, opened.target, installation.messages)
    else:
        assert isinstance(opened.tree, ChangedTree | JoinedTree)
        put_overlay(overlay, opened.tree, installation.messages)


def _becomes_instance(installation: Installation, opened: OpenedGuest) -> bool:
    """Give the guest the identity of its instance; True if a seed in it will not be seen."""
    become_instance(installation, opened.tree)
    return installation.gives_identity and needs_seed_volume(opened.tree, opened.inside)


def become_instance(installation: Installation, tree: Tree) -> None:
    """Give the system in the tree the identity of its instance, unless the settings say no."""
    request, settings = installation.request, installation.settings
    if installation.gives_identity:
        with installation.messages.step("identity"):
            make_instance(tree, instance_facts(request, settings, is_new=True), settings, installation.keys)


def run_scripts(installation: Installation, target: str, root_device: str, boot_device: str | None) -> None:
    """Run the scripts with target as the guest's root; a disk that is a file gets a block device for them."""
    request = installation.request
    with _block_device(installation) as blockdev:
        environment = scripts.script_environment(
            request.environment,
            installation.settings.for_scripts() | steps_environment(installation.settings),
            target=target,
            blockdev=blockdev,
            root_dev=root_device,
            boot_dev=boot_device,
        )
        scripts.run(installation.scripts, environment, target=target)


@contextmanager
def _block_device(installation: Installation) -> Iterator[str]:
    disk = installation.disk
    if stat.S_ISBLK(os.fstat(disk.fd).st_mode):
        yield disk.name
        return
    with loop_device(disk.fd, length=disk.size // disk.sector_size * disk.sector_size) as loop:
        yield loop.path
