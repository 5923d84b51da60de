# SPDX-License-Identifier: MIT
"""create: an image becomes the instance's disk."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import replace

from ganeti_os.guest.firmware import holds_firmware_variables
from ganeti_os.guest.ssh.key_pairs import KeyMaker
from ganeti_os.install import scripts
from ganeti_os.install.from_image import install_disk_image
from ganeti_os.install.image_check import check_image_file
from ganeti_os.install.image_file import ImageFile, find_image, image_names
from ganeti_os.install.installation import Installation, prepare_identity
from ganeti_os.log import Messages
from ganeti_os.request import Request
from ganeti_os.settings.image_names import is_disk_in_tarball
from ganeti_os.settings.settings import Settings, check_contradictions, warn_of_missing_directories
from pydiskimg.disks.descriptor import DescriptorDisk
from pydiskimg.images.open_disk import open_disk

log = logging.getLogger(__name__)


def run(request: Request, settings: Settings, messages: Messages) -> None:
    """Install the image that the settings name onto the request's first disk.

    All refusals come before the first write; the partition table is written last.
    """
    if settings.cdinstall:
        log.info("CDINSTALL=yes: nothing is prepared; install the instance from a CD")
        return
    started = time.monotonic()
    check_contradictions(settings)
    warn_of_missing_directories(settings)
    keys = KeyMaker()
    if not settings.identity_is_off:
        prepare_identity(request, settings, keys)
    enabled = [] if settings.nomount else scripts.enabled(settings.customize_dir)
    overlay = _overlay(settings)
    with ExitStack() as stack:
        image = _image(stack, request, settings, messages)
        disk = stack.enter_context(open_disk(request.disks[0].path, writable=True))
        swap = _swap(stack, request, settings)
        if not settings.guest_mount and not (image.is_dump or image.is_archive):
            enabled = _left_out(settings, enabled)
        installation = Installation(request, settings, messages, disk, swap, tuple(enabled), overlay, keys)
        if image.is_dump or image.is_archive:
            _install_files(image, installation)
        else:
            install_disk_image(image, installation)
        log.info("%s is installed on %s (%.1f s)", image.path, disk.name, time.monotonic() - started)


def _swap(stack: ExitStack, request: Request, settings: Settings) -> DescriptorDisk | None:
    """Return the disk that becomes swap as a whole, unless it contains firmware variables of a guest."""
    if not request.swap_path or not settings.swap:
        return None
    disk = stack.enter_context(open_disk(request.swap_path, writable=True))
    if holds_firmware_variables(disk):
        log.warning("%s contains firmware variables (UEFI) and is not changed; no swap area is made", disk.name)
        return None
    return disk


def _left_out(settings: Settings, enabled: list[str]) -> list[str]:
    """Warn that the administrator's scripts do not run in a disk image that is not mounted; return those that do."""
    if enabled:
        log.warning("GUEST_MOUNT=no: the customisation scripts in %s do not run", settings.customize_dir)
    return []


def _overlay(settings: Settings) -> str | None:
    if not settings.overlay:
        return None
    if settings.nomount:
        log.info("NOMOUNT=yes: the overlay %s is not copied", settings.overlay)
        return None
    from ganeti_os.install.overlay import find_overlay  # imported here: few installations have one

    return find_overlay(settings)


def _image(stack: ExitStack, request: Request, settings: Settings, messages: Messages) -> ImageFile:
    """Return the image, fetched if it has an address; it stays available while the stack is open."""
    names: tuple[str, ...] = ()
    if settings.image_url:
        from ganeti_os.fetch import fetched_first  # takes longer to import than copying a small image

        candidates = image_names(settings, kernel_inside=request.kernel_inside)
        names = stack.enter_context(fetched_first(candidates, settings, messages, instance=request.instance))
    image = find_image(settings, kernel_inside=request.kernel_inside, names=names)
    is_packed = check_image_file(image.path, settings.image_type)
    if image.boot_path is not None:
        check_image_file(image.boot_path, settings.image_type)
    if image.is_archive and _holds_disk(image.path):
        return replace(image, is_archive=False, is_packed=True, in_tarball=True)
    return replace(image, is_packed=is_packed)


def _holds_disk(tarball: str) -> bool:
    """True if the tarball contains a disk image rather than a system's files."""
    from pydiskimg.files.tar import first_file  # needed for reading a tarball anyway

    name = first_file(tarball)
    return name is not None and is_disk_in_tarball(name)


def _install_files(image: ImageFile, installation: Installation) -> None:
    """Install an image of a system's files, on new file systems."""
    # Imported here: libarchive and libparted take longer to import than copying a small disk image.
    if image.is_dump:
        from ganeti_os.install.from_dumps import install_dumps

        install_dumps(image, installation)
    else:
        from ganeti_os.install.from_tarball import install_tarball

        install_tarball(image.path, installation)
