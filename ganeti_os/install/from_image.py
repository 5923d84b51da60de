# SPDX-License-Identifier: MIT
"""Install a disk image (qcow2 or raw): copy it, grow it to fill the disk, and make it the instance."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from ganeti_os.guest.firmware import tell_of_uefi
from ganeti_os.install.grow import release_grown
from ganeti_os.install.held_disk import HeldDisk
from ganeti_os.install.image_check import check_disk_contents
from ganeti_os.install.image_end import check_complete
from ganeti_os.install.image_file import ImageFile, open_complete_image
from ganeti_os.install.installation import Installation, require_mounting
from pydiskimg.disks.fits import check_fits
from pydiskimg.errors import InUseError, StorageError
from pydiskimg.fs.swap import check_swap, make_swap
from pydiskimg.host.claims import is_same_file
from pydiskimg.protocols import ImageSource, ShownDisk, Source
from pydiskimg.transfer.copy import copy
from pydiskimg.units import format_size

log = logging.getLogger(__name__)

_WITHOUT_ROOT = "IDENTITY=no copies an image as it is, without root, where there are no overlay and scripts"


def install_disk_image(image: ImageFile, installation: Installation) -> None:
    """Copy the image onto the disk, its first MiB last, grow it to fill the disk, and make it the instance.

    Nothing is mounted if there are no scripts and the system is on an ext, or is not changed.
    """
    target, enters = _install_packed(image, installation) if image.is_packed else _install_plain(image, installation)
    tell_of_uefi(target, installation.request)

    def change(disk: ShownDisk) -> None:
        named = enters and _customise(installation, disk)
        if installation.gives_identity and not named:
            _seed(installation, disk)

    needs_table = bool(installation.scripts)
    release_grown(target, installation, change, done="everything is installed", needs_table=needs_table)


def _install_plain(image: ImageFile, installation: Installation) -> tuple[HeldDisk, bool]:
    """Copy the image except its first MiB; return the disk, and whether the system on it is to be changed."""
    with open_complete_image(image.path, format=image.format) as source:
        return _install_source(image, source, installation)


def _install_source(image: ImageFile, source: ImageSource, installation: Installation) -> tuple[HeldDisk, bool]:
    """Do so with the open image, which shows before the first write whether its system must be mounted."""
    enters = installation.is_customised or (installation.gives_identity and _may_hold_linux(source))
    if enters:
        from ganeti_os.install.customise import require_right_to_mount  # imported here, because it takes long to import

        require_right_to_mount(installation, source, _WITHOUT_ROOT)
    return _copied(image, installation, lambda: _copy(image, source, installation)), enters


def _install_packed(image: ImageFile, installation: Installation) -> tuple[HeldDisk, bool]:
    """Copy a compressed image as _install_plain() does.

    Raw bytes are examined on the disk, unless the right to mount is missing: then they are first unpacked into a file
    and examined there, as a qcow2 always is.
    """
    from ganeti_os.install.from_packed import copy_raw, opened_packed, unpacked  # this imports libarchive

    enters = installation.is_customised or installation.gives_identity
    streams = not enters or _could_mount(installation)  # checked before a thread decompresses
    with opened_packed(image) as (packed, format_):
        if format_.has_options or not streams:
            with unpacked(packed, format_, installation) as source:
                return _install_source(image, source, installation)
        target = _copied(image, installation, lambda: copy_raw(packed, installation))
    return target, installation.is_customised or (installation.gives_identity and _may_hold_linux(target))


def _could_mount(installation: Installation) -> bool:
    """True if any system on the disk could be mounted as far as necessary."""
    if not installation.scripts and not installation.settings.guest_mount:
        return True
    try:
        require_mounting(_WITHOUT_ROOT)
    except StorageError as error:
        if installation.scripts or error.errno != errno.EPERM:
            raise
        return False
    return True


def _customise(installation: Installation, disk: ShownDisk) -> bool:
    from ganeti_os.install.customise import customise_image

    with installation.messages.step("customising"):
        return customise_image(installation, disk)


def _seed(installation: Installation, disk: ShownDisk) -> None:
    from ganeti_os.guest.seed_volume import seed_in_front  # imported here, because mounting takes long to import

    seed_in_front(disk, installation.request, installation.settings)


def _may_hold_linux(source: Source) -> bool:
    from ganeti_os.guest.root import holds_mountable  # imported here, because mounting takes long to import

    found = holds_mountable(source)
    if not found:
        log.info("%s: no Linux file system was found in it, so its name, network and keys are not changed", source.name)
    return found


def _copied(image: ImageFile, installation: Installation, copying: Callable[[], HeldDisk]) -> HeldDisk:
    """Copy all of the image except its first MiB, and make the swap area. The caller releases the result."""
    disk, swap = installation.disk, installation.swap
    with installation.messages.step("copying"):
        if is_same_file(image.path, disk.fd):
            raise InUseError(f"{disk.name}: is the image itself; nothing was written", errno=None, filename=disk.name)
        if swap is not None:
            check_swap(swap)
        target = copying()
        target.wipe_rest()  # before growing writes there
        if swap is not None:
            installation.wiping.wipe(swap)
            make_swap(swap)
            swap.flush()
    return target


def _copy(image: ImageFile, source: ImageSource, installation: Installation) -> HeldDisk:
    disk = installation.disk
    form = f"{source.format}, compressed" if image.is_packed else source.format
    log.info("%s (%s, %s) to %s", source.name, form, format_size(source.size), disk.name)
    check_disk_contents(source)
    check_complete(source, source.size, source.name)
    check_fits(source, disk)
    target = HeldDisk(disk, installation.wiping)
    copied = copy(source, target, progress=installation.messages.progress("copied"))
    log.debug("%d bytes written, %d zeroed by %s", copied.written, copied.zeroed, disk.ladder.current)
    return target
