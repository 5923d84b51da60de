# SPDX-License-Identifier: MIT
"""A disk image that is compressed, or in a tarball: raw bytes go onto the disk as they come, a qcow2 is unpacked first.

qcow2 images that qemu-img wrote have their tables anywhere, so that they cannot be read front to back (ADR 0109).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ganeti_os.fetch.cache import open_cache
from ganeti_os.install.held_disk import HeldDisk
from ganeti_os.install.image_check import check_disk_contents
from ganeti_os.install.image_file import ImageFile, open_complete_image
from ganeti_os.install.installation import Installation
from ganeti_os.install.nameless_file import end_at, nameless_file
from pydiskimg.disks.fits import check_fits, check_size_fits
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.files.tar import PackedFile, only_file, open_packed
from pydiskimg.images import FORMATS, recognised
from pydiskimg.images.qcow2.layout import HEADER
from pydiskimg.linux.fileio import pwrite_all
from pydiskimg.protocols import Progress
from pydiskimg.transfer.copy import copy
from pydiskimg.transfer.receive import stream_of
from pydiskimg.units import KIB, MIB, format_size
from pydiskimg.volumes.described_end import LOOK_AT, described_end

log = logging.getLogger(__name__)

_PIECE = 64 * KIB  # what is zero in it becomes a hole
_ZEROS = bytes(_PIECE)
# The largest qcow2 of a disk: tables of a sixteenth of it with the smallest clusters there are, and a little more.
_TABLES_SHARE, _TABLES_MORE = 16, 64 * MIB
_SIZE_FIELD = HEADER.slice_of("size")


def copy_packed(image: ImageFile, installation: Installation) -> HeldDisk:
    """Copy what is in the compressed image, but for its first MiB, which the caller releases.

    Raises DoesNotFitError before anything is written where the size is known by then; StorageError when more comes than
    the disk has room for, ArchiveError when the compressed data are corrupt: then the disk begins with zeros.
    """
    with only_file(image.path) if image.in_tarball else open_packed(image.path) as packed:
        beginning = packed.peek(LOOK_AT)
        format_ = FORMATS[image.format] if image.format else recognised(beginning)
        if not beginning.startswith(format_.magic):
            raise UnsupportedImageError(
                f"{packed.name}: what is in it is not a {format_.name} disk image, expected one; "
                "IMAGE_TYPE=qemu takes any; nothing was written"
            )
        return (_copy_qcow2 if format_.has_options else _copy_raw)(packed, installation)


def _copy_raw(packed: PackedFile, installation: Installation) -> HeldDisk:
    disk = installation.disk
    beginning = packed.peek(LOOK_AT)
    if not beginning:
        raise InvalidImageError(f"{packed.name}: is the image of a disk of 0 bytes; expected one that holds something")
    _check_beginning(packed.name, beginning)
    described = described_end(beginning)
    check_size_fits(packed.name, described, disk)
    size = f", {format_size(described)} or more" if described else ""
    log.info("%s (raw, compressed%s) to %s", packed.name, size, disk.name)
    target = HeldDisk(disk, installation.wiping)
    messages = installation.messages
    with stream_of(packed, format="raw") as stream:
        done = stream.copy_to(target, progress=_of_file(messages.progress("copied"), packed))
    log.info("%s of the disk came, in %s", format_size(done), format_size(packed.size))
    return target


def _copy_qcow2(packed: PackedFile, installation: Installation) -> HeldDisk:
    disk = installation.disk
    size = int.from_bytes(packed.peek(_SIZE_FIELD.stop)[_SIZE_FIELD], "big")
    check_size_fits(packed.name, size, disk)
    with (
        _unpacked(packed, installation, size) as path,
        open_complete_image(path, format="qcow2", name=packed.name) as source,
    ):
        log.info("%s (qcow2, compressed, %s) to %s", packed.name, format_size(source.size), disk.name)
        check_disk_contents(source)
        check_fits(source, disk)
        target = HeldDisk(disk, installation.wiping)
        copy(source, target, progress=installation.messages.progress("copied"))
    return target


@contextmanager
def _unpacked(packed: PackedFile, installation: Installation, disk_size: int) -> Iterator[str]:
    """Decompress the qcow2 of a disk of that many bytes into a file without a name in CACHE_DIR, and give its path."""
    directory = installation.settings.cache_dir
    open_cache(directory)
    limit = disk_size + disk_size // _TABLES_SHARE + _TABLES_MORE
    progress = _of_file(installation.messages.progress("decompressed"), packed)
    with nameless_file(directory, f"the qcow2 in {packed.name}", setting="CACHE_DIR") as fd:
        while data := packed.read(_PIECE):
            if packed.position > limit:
                raise InvalidImageError(
                    f"{packed.name}: holds a qcow2 of more than {format_size(limit)} for a disk of "
                    f"{format_size(disk_size)}; expected less; nothing was written"
                )
            if data != _ZEROS[: len(data)]:
                pwrite_all(fd, packed.position - len(data), data, name=directory)
            progress(packed.position, 0)
        end_at(fd, packed.position, directory)  # with a hole at the end, if there is one
        yield f"/proc/self/fd/{fd}"


def _check_beginning(name: str, beginning: bytes) -> None:
    disk = MemoryDisk(len(beginning), name=name)
    disk.write(0, beginning)
    check_disk_contents(disk, inside=True)


def _of_file(progress: Progress, packed: PackedFile) -> Progress:
    """Tell how much of the compressed file was read: how large its contents are is not known."""
    return lambda _done, _total: progress(packed.consumed, packed.size)
