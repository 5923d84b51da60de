# SPDX-License-Identifier: MIT
"""A disk image that is compressed, or in a tarball: raw bytes are written as they arrive, a qcow2 is unpacked first.

qcow2 images of qemu-img may have their tables anywhere, so that they cannot be read in order (ADR 0109). Raw bytes are
unpacked first if they may need a right that is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ganeti_os.fetch.cache import open_cache
from ganeti_os.install.held_disk import HeldDisk
from ganeti_os.install.image_check import check_disk_contents
from ganeti_os.install.image_end import check_complete
from ganeti_os.install.image_file import ImageFile, open_complete_image
from ganeti_os.install.installation import Installation
from ganeti_os.install.nameless_file import end_at, nameless_file
from pydiskimg.disks.fits import check_size_fits
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DoesNotFitError, InvalidImageError, UnsupportedImageError
from pydiskimg.files.tar import PackedFile, only_file, open_packed
from pydiskimg.images import FORMATS, Format, recognised
from pydiskimg.images.qcow2.layout import HEADER
from pydiskimg.linux.fileio import pwrite_all
from pydiskimg.protocols import ImageSource, Progress
from pydiskimg.transfer.receive import stream_of
from pydiskimg.units import KIB, MIB, format_bytes, format_size
from pydiskimg.volumes.described_end import LOOK_AT, described_end

log = logging.getLogger(__name__)

_PIECE = 64 * KIB  # zeros become holes
_ZEROS = bytes(_PIECE)
# The largest qcow2 of a disk: tables of a sixteenth of it with the smallest possible clusters, and a little more.
_TABLES_SHARE, _TABLES_MORE = 16, 64 * MIB
_SIZE_FIELD = HEADER.slice_of("size")


@contextmanager
def opened_packed(image: ImageFile) -> Iterator[tuple[PackedFile, Format]]:
    """Give the contents of the compressed image, and their format, while the context lasts."""
    with only_file(image.path) if image.in_tarball else open_packed(image.path) as packed:
        beginning = packed.peek(LOOK_AT)
        format_ = FORMATS[image.format] if image.format else recognised(beginning)
        if not beginning.startswith(format_.magic):
            raise UnsupportedImageError(
                f"{packed.name}: its content is not a {format_.name} disk image; IMAGE_TYPE=qemu accepts any; nothing "
                "was written"
            )
        yield packed, format_


def copy_raw(packed: PackedFile, installation: Installation) -> HeldDisk:
    """Copy raw bytes as they arrive, except for the first MiB, which the caller releases.

    Raises DoesNotFitError before the first write if the size is known by then; StorageError when the data are larger
    than the disk, ArchiveError when the compressed data are corrupt, InvalidImageError when they are truncated: the
    disk then begins with zeros.
    """
    disk = installation.disk
    described = _checked_end(packed, installation)
    size = f", {format_size(described)} or more" if described else ""
    log.info("%s (raw, compressed%s) to %s", packed.name, size, disk.name)
    target = HeldDisk(disk, installation.wiping)
    messages = installation.messages
    with stream_of(packed, format="raw") as stream:
        done = stream.copy_to(target, progress=_of_file(messages.progress("copied"), packed))
    check_complete(target, done, packed.name)
    log.info("%s of the disk arrived, in %s", format_size(done), format_size(packed.size))
    return target


@contextmanager
def unpacked(packed: PackedFile, format_: Format, installation: Installation) -> Iterator[ImageSource]:
    """Decompress the image into an unnamed file in CACHE_DIR, and open it while the context lasts.

    Raises DoesNotFitError as soon as it is known, ArchiveError when the compressed data are corrupt.
    """
    check = (_qcow2_limit if format_.has_options else _raw_limit)(packed, installation)
    directory = installation.settings.cache_dir
    open_cache(directory)
    with nameless_file(directory, f"the {format_.name} in {packed.name}", setting="CACHE_DIR") as fd:
        with installation.messages.step("decompressing"):
            progress = _of_file(installation.messages.progress("decompressed"), packed)
            while data := packed.read(_PIECE):
                check(packed.position)
                if data != _ZEROS[: len(data)]:
                    pwrite_all(fd, packed.position - len(data), data, name=directory)
                progress(packed.position, 0)
            end_at(fd, packed.position, directory)  # including a hole at the end
        with open_complete_image(f"/proc/self/fd/{fd}", format=format_.name, name=packed.name) as source:
            yield source


def _qcow2_limit(packed: PackedFile, installation: Installation) -> Callable[[int], None]:
    """Return a check that refuses a file longer than a qcow2 of a virtual size that fits the disk."""
    size = int.from_bytes(packed.peek(_SIZE_FIELD.stop)[_SIZE_FIELD], "big")
    check_size_fits(packed.name, size, installation.disk)
    limit = size + size // _TABLES_SHARE + _TABLES_MORE

    def check(position: int) -> None:
        if position > limit:
            raise InvalidImageError(
                f"{packed.name}: contains a qcow2 of more than {format_size(limit)} for a disk of {format_size(size)}; "
                "expected less; nothing was written"
            )

    return check


def _raw_limit(packed: PackedFile, installation: Installation) -> Callable[[int], None]:
    """Return a check that refuses raw bytes as soon as they exceed the disk: their size is known only at the end."""
    _checked_end(packed, installation)
    disk = installation.disk

    def check(position: int) -> None:
        if position > disk.size:
            raise DoesNotFitError(
                f"{disk.name}: the image {packed.name} is larger than the disk, which has {format_bytes(disk.size)}; "
                "nothing was written",
                needed=position,
                available=disk.size,
            )

    return check


def _checked_end(packed: PackedFile, installation: Installation) -> int:
    """Return the end of raw bytes by their own beginning; refuses the beginning of another file type."""
    beginning = packed.peek(LOOK_AT)
    if not beginning:
        raise InvalidImageError(f"{packed.name}: is the image of a disk of 0 bytes; expected a disk with data")
    _check_beginning(packed.name, beginning)
    described = described_end(beginning)
    check_size_fits(packed.name, described, installation.disk)
    return described


def _check_beginning(name: str, beginning: bytes) -> None:
    disk = MemoryDisk(len(beginning), name=name)
    disk.write(0, beginning)
    check_disk_contents(disk, inside=True)


def _of_file(progress: Progress, packed: PackedFile) -> Progress:
    """Report how much of the compressed file was read: the size of its contents is not known."""
    return lambda _done, _total: progress(packed.consumed, packed.size)
