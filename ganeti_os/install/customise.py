# SPDX-License-Identifier: MIT
"""An installed system: the overlay copied over it, the instance's identity, then the scripts."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from ganeti_os.guest.cloud_init import needs_seed_volume
from ganeti_os.guest.facts.instance import instance_facts
from ganeti_os.guest.instance import make_instance
from ganeti_os.guest.mounted_guest import mounted_guest
from ganeti_os.guest.opened_guest import opened_guest
from ganeti_os.guest.root import Guest, LeftAloneError, NoRootError, find_guest
from ganeti_os.install import scripts
from ganeti_os.install.installation import Installation
from ganeti_os.install.step_environment import steps_environment
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.files.tree import Tree
from pydiskimg.fs.ext4.change.joined import JoinedTree
from pydiskimg.fs.ext4.change.tree import ChangedTree
from pydiskimg.host.loop import loop_device
from pydiskimg.protocols import ShownDisk

log = logging.getLogger(__name__)


def customise_image(installation: Installation, disk: ShownDisk) -> bool:
    """Find the system on the disk, let it become the instance, and customise it.

    Scripts, and what is not an ext, need root: they are mounted, unless GUEST_MOUNT=no.

    disk is the installation's, or what holds its beginning back; scripts see the installation's. A disk without a Linux
    system stays as its image made it where nothing else than its identity was to change. False where the instance's
    name and network did not get to where the system's cloud-init reads them.
    """
    may_mount = installation.settings.guest_mount
    try:
        guest = find_guest(disk, may_mount=may_mount)
        if installation.is_customised and is_mounted(installation, guest):
            hidden = _customise_mounted(installation, disk, guest)
        else:
            if installation.overlay is not None:
                _bring_overlay(installation, installation.overlay, disk, guest)
            with opened_guest(disk, guest, may_mount=may_mount) as opened:
                become_instance(installation, opened.tree)
                hidden = installation.gives_identity and needs_seed_volume(opened.tree, opened.inside)
    except NoRootError as error:
        if installation.is_customised and not isinstance(error, LeftAloneError):
            raise
        left = ", and the overlay is not copied" if installation.overlay else ""
        log.warning("name, network and keys stay those of the image%s: %s", left, error)
        return False
    disk.flush()
    return not hidden


def is_mounted(installation: Installation, guest: Guest | None) -> bool:
    """Tell whether the guest is mounted to be customised: for scripts, and for what is not an ext; None may be either.

    The overlay may bring something for a /boot/efi, which is a FAT.
    """
    if installation.scripts or not installation.settings.guest_mount:
        return bool(installation.scripts)
    return guest is None or not guest.is_ext or _reaches_efi(installation, guest)


def _reaches_efi(installation: Installation, guest: Guest) -> bool:
    if installation.overlay is None or guest.efi is None:
        return False
    from ganeti_os.install.overlay import overlay_brings  # only here: few installations have one

    return overlay_brings(installation.overlay, "/boot/efi")


def _bring_overlay(installation: Installation, overlay: str, disk: ShownDisk, guest: Guest) -> None:
    """Put the overlay's files into the guest, however many: without its beginning the disk boots nowhere yet."""
    from ganeti_os.install.overlay import copy_overlay, put_overlay  # only here: few installations have one

    may_mount = installation.settings.guest_mount
    if _reaches_efi(installation, guest):
        log.warning("/boot/efi of the guest is left alone (GUEST_MOUNT=no), and what the overlay has there is hidden")
    with opened_guest(disk, guest, may_mount=may_mount, at_once=False) as opened:
        if opened.target is not None:
            copy_overlay(overlay, opened.target, installation.messages)
        else:
            assert isinstance(opened.tree, ChangedTree | JoinedTree)
            put_overlay(overlay, opened.tree, installation.messages)


def _customise_mounted(installation: Installation, disk: ShownDisk, guest: Guest) -> bool:
    """Mount the guest, for the administrator's files and scripts; True where a seed in it is not seen."""
    with mounted_guest(disk, guest, programs=bool(installation.scripts)) as mounted:
        if installation.overlay is not None:
            from ganeti_os.install.overlay import copy_overlay  # only here: few installations have one

            copy_overlay(installation.overlay, mounted.target, installation.messages)
        with open_mounted_tree(mounted.target, name=installation.disk.name) as tree:
            become_instance(installation, tree)
            hidden = installation.gives_identity and needs_seed_volume(tree, mounted.inside)
        if installation.scripts:
            run_scripts(installation, mounted.target, mounted.root_device, mounted.boot_device)
    return hidden


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
