# SPDX-License-Identifier: MIT
"""Installing a disk image (qcow2 or raw): a copy that fills the disk and becomes the instance."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from ganeti_os.former import WholeDisk
from ganeti_os.guest.firmware import tell_of_uefi
from ganeti_os.imagecheck import check_disk_contents
from ganeti_os.imagefile import ImageFile, open_complete_image
from ganeti_os.installation import Installation
from pydiskimg.deferred import HEAD_SIZE
from pydiskimg.errors import InUseError, PartitionError, StorageError
from pydiskimg.fs.swap import check_swap, make_swap
from pydiskimg.holders import is_same_file
from pydiskimg.partition_reader import read_partition_table
from pydiskimg.protocols import GrowableDisk, ImageSource, Source
from pydiskimg.transfer import check_fits, copy
from pydiskimg.unfinished import finish, unfinished
from pydiskimg.units import format_size

log = logging.getLogger(__name__)


def install_disk_image(image: ImageFile, installation: Installation) -> None:
    """Copy the image onto the disk, its first MiB last, let it fill the disk, and let it become the instance.

    Nothing is mounted where neither is wanted and there are no overlay and scripts.
    """
    target, enters = _install_packed(image, installation) if image.is_packed else _install_plain(image, installation)
    tell_of_uefi(target, installation.request)
    grows_early = installation.grows and _lies_after_head(target)
    if grows_early:
        _grow(installation, target)
    if enters:
        _customise(installation, target)
    else:
        _finish(installation, target)
    if installation.grows and not grows_early:
        _grow(installation, installation.disk)


def _install_plain(image: ImageFile, installation: Installation) -> tuple[WholeDisk, bool]:
    """Copy the image but for its first MiB; return where to, and whether the system on it is to be entered."""
    with open_complete_image(image.path, format=image.format) as source:
        enters = installation.is_customised or (installation.gives_identity and _may_hold_linux(source))
        if enters:
            _enter_private_namespace()  # refused without root before anything is written
        return _copied(image, installation, lambda: _copy(image, source, installation)), enters


def _install_packed(image: ImageFile, installation: Installation) -> tuple[WholeDisk, bool]:
    """Copy a compressed image as _install_plain() does: what is in it is seen when it is on the disk."""
    from ganeti_os.packedimage import copy_packed  # and with it libarchive, which most images do without

    if installation.is_customised or installation.gives_identity:
        _enter_private_namespace()  # refused without root before anything is written
    target = _copied(image, installation, lambda: copy_packed(image, installation))
    return target, installation.is_customised or (installation.gives_identity and _may_hold_linux(target))


def _enter_private_namespace() -> None:
    # Only here, as what mounts takes longer to import than a small image to copy.
    from pydiskimg.mount import enter_private_namespace

    try:
        enter_private_namespace()
    except StorageError as error:
        if error.errno != errno.EPERM:
            raise
        text = f"{error}; IDENTITY=no copies an image as it is, without root, where there are no overlay and scripts"
        raise StorageError(text, errno=error.errno, filename=error.filename) from error


def _customise(installation: Installation, target: WholeDisk) -> None:
    """Let the system on the disk become the instance, before the disk's beginning is there where that is possible."""
    from ganeti_os.customize import customize_image, wiped_on_failure
    from ganeti_os.guest.root import lies_after

    with installation.messages.step("customising"), wiped_on_failure(installation):
        if not installation.scripts and lies_after(target, HEAD_SIZE):
            target.flush()
            _finish(installation, target, named=customize_image(installation, target))
            return
        # Boot loaders' installers want a table; this one has every place and nothing that boots or is mounted by it.
        target.commit(unfinished(target.head))
        named = customize_image(installation, installation.disk)
        finish(installation.disk, target.head)
    if installation.gives_identity and not named:
        _seed(installation, installation.disk)


def _finish(installation: Installation, target: WholeDisk, *, named: bool = False) -> None:
    """Write the beginning of the disk; before it a seed where the system has not got its name in another way."""
    if installation.gives_identity and not named:
        _seed(installation, target)
    target.commit()


def _seed(installation: Installation, disk: GrowableDisk) -> None:
    from ganeti_os.guest.seed_volume import seed_in_front  # only here, as _enter_private_namespace()

    seed_in_front(disk, installation.request, installation.settings)


def _lies_after_head(target: WholeDisk) -> bool:
    """Tell whether what may be mounted to grow it lies on the disk already, and nothing of it in the deferred head."""
    try:
        partitions = read_partition_table(target, sector_size=target.sector_size)
    except PartitionError:  # growing says what is wrong with it
        return False
    return bool(partitions) and all(partition.start >= HEAD_SIZE for partition in partitions)


def _grow(installation: Installation, disk: GrowableDisk) -> None:
    from ganeti_os.growing import grow

    with installation.messages.step("growing"):
        grow(disk, done="everything is installed")


def _may_hold_linux(source: Source) -> bool:
    from ganeti_os.guest.root import holds_mountable  # only here, as _enter_private_namespace()

    found = holds_mountable(source)
    if not found:
        log.info("%s: no Linux file system was found in it, so its name, network and keys stay", source.name)
    return found


def _copied(image: ImageFile, installation: Installation, copying: Callable[[], WholeDisk]) -> WholeDisk:
    """Copy all of the image but its first MiB, and make the swap area. The caller commits what is returned."""
    disk, swap = installation.disk, installation.swap
    with installation.messages.step("copying"):
        if is_same_file(image.path, disk.fd):
            raise InUseError(f"{disk.name}: is the image itself; nothing was written", errno=None, filename=disk.name)
        if swap is not None:
            check_swap(swap)
        target = copying()
        target.wipe_rest()  # before anything that grows writes there
        if swap is not None:
            installation.wiping.wipe(swap)
            make_swap(swap)
            swap.flush()
    return target


def _copy(image: ImageFile, source: ImageSource, installation: Installation) -> WholeDisk:
    disk = installation.disk
    log.info("%s (%s, %s) to %s", image.path, source.format, format_size(source.size), disk.name)
    check_disk_contents(source)
    check_fits(source, disk)
    target = WholeDisk(disk, installation.wiping)
    copied = copy(source, target, progress=installation.messages.progress("copied"))
    log.debug("%d bytes written, %d zeroed by %s", copied.written, copied.zeroed, disk.ladder.current)
    return target
