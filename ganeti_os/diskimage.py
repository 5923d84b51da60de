# SPDX-License-Identifier: MIT
"""Installing a disk image (qcow2 or raw): a copy, and the overlay and scripts where there are some."""

from __future__ import annotations

import logging

from ganeti_os.former import WholeDisk
from ganeti_os.guest.firmware import tell_of_uefi
from ganeti_os.imagecheck import check_disk_contents
from ganeti_os.imagefile import ImageFile, open_complete_image
from ganeti_os.installation import Installation
from pydiskimg.errors import InUseError
from pydiskimg.fs.swap import check_swap, make_swap
from pydiskimg.holders import is_same_file
from pydiskimg.transfer import check_fits, copy
from pydiskimg.unfinished import finish, unfinished
from pydiskimg.units import format_size

log = logging.getLogger(__name__)


def install_disk_image(image: ImageFile, installation: Installation) -> None:
    """Copy the image onto the disk, its first MiB last. Nothing is mounted unless it is customised."""
    if not installation.is_customised:
        _copy(image, installation).commit()
        return
    # Only here, as what mounts takes longer to import than a small image to copy; and before anything is written.
    from ganeti_os.customize import customize_image, wiped_on_failure
    from pydiskimg.mount import enter_private_namespace

    enter_private_namespace()  # refused without root before anything is written
    target = _copy(image, installation)
    with installation.messages.step("customising"), wiped_on_failure(installation):
        # Boot loaders' installers want a table; this one has every place and nothing that boots or is mounted by it.
        target.commit(unfinished(target.head))
        customize_image(installation)
        finish(installation.disk, target.head)


def _copy(image: ImageFile, installation: Installation) -> WholeDisk:
    """Copy all of the image but its first MiB, and make the swap area. The caller commits what is returned."""
    disk, swap = installation.disk, installation.swap
    with installation.messages.step("copying"):
        if is_same_file(image.path, disk.fd):
            raise InUseError(f"{disk.name}: is the image itself; nothing was written", errno=None, filename=disk.name)
        if swap is not None:
            check_swap(swap)
        if image.is_packed:
            from ganeti_os.packedimage import copy_packed  # and with it libarchive, which most images do without

            target = copy_packed(image, installation)
        else:
            target = _copy_plain(image, installation)
        if swap is not None:
            installation.wiping.wipe(swap)
            make_swap(swap)
            swap.flush()
    return target


def _copy_plain(image: ImageFile, installation: Installation) -> WholeDisk:
    disk = installation.disk
    with open_complete_image(image.path, format=image.format) as source:
        log.info("%s (%s, %s) to %s", image.path, source.format, format_size(source.size), disk.name)
        check_disk_contents(source)
        check_fits(source, disk)
        target = WholeDisk(disk, installation.wiping)
        copied = copy(source, target, progress=installation.messages.progress("copied"))
        log.debug("%d bytes written, %d zeroed by %s", copied.written, copied.zeroed, disk.ladder.current)
    return target
