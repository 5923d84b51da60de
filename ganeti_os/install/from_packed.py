# SPDX-License-Identifier: MIT
"""A disk image that is compressed, or in a tarball: raw bytes go onto the disk as they come, a qcow2 is unpacked first.

qcow2 images that qemu-img wrote have their tables anywhere, so that they cannot be read front to back (ADR 0109). Raw
bytes are unpacked first where something in them may need a right that is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ganeti_os.fetch.cache import open_cache
from ganeti_os.install.held_disk import HeldDisk
from ganeti_os.install.image_check import check_disk_contents
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

_PIECE = 64 * KIB  # what is zero in it becomes a hole
_ZEROS = bytes(_PIECE)
# The largest qcow2 of a disk: tables of a sixteenth of it with the smallest clusters there are, and a little more.
_TABLES_SHARE, _TABLES_MORE = 16, 64 * MIB
_SIZE_FIELD = HEADER.slice_of("size")


@contextmanager
def opened_packed(image: ImageFile) -> Iterator[tuple[PackedFile, Format]]:
    """Give what is in the compressed image, and its format, while the context lasts."""
    with only_file(image.path) if image.in_tarball else open_packed(image.path) as packed:
        beginning = packed.peek(LOOK_AT)
        format_ = FORMATS[image.format] if image.format else recognised(beginning)
        if not beginning.startswith(format_.magic):
            raise UnsupportedImageError(
                f"{packed.name}: what is in it is not a {format_.name} disk image, expected one; "
                "IMAGE_TYPE=qemu takes any; nothing was written"
            )
        yield packed, format_


def copy_raw(packed: PackedFile, installation: Installation) -> HeldDisk:
    """Copy raw bytes as they come, but for the first MiB, which the caller releases.

    Raises DoesNotFitError before anything is written where the size is known by then; StorageError when more comes than
    the disk has room for, ArchiveError when the compressed data are corrupt: then the disk begins with zeros.
    """
    disk = installation.disk
    described = _checked_end(packed, installation)
    size = f", {format_size(described)} or more" if described else ""
    log.info("%s (raw, compressed%s) to %s", packed.name, size, disk.name)
    target = HeldDisk(disk, installation.wiping)
    messages = installation.messages
    with stream_of(packed, format="raw") as stream:
        done = stream.copy_to(target, progress=_of_file(messages.progress("copied"), packed))
    log.info("%s of the disk came, in %s", format_size(done), format_size(packed.size))
    return target


@contextmanager
def unpacked(packed: PackedFile, format_: Format, installation: Installation) -> Iterator[ImageSource]:
    """Decompress the image into a file without a name in CACHE_DIR, and open it while the context lasts.

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
            end_at(fd, packed.position, directory)  # with a hole at the end, if there is one
        with open_complete_image(f"/proc/self/fd/{fd}", format=format_.name, name=packed.name) as source:
            yield source


def _qcow2_limit(packed: PackedFile, installation: Installation) -> Callable[[int], None]:
    """Return what refuses a file that is longer than a qcow2 of its virtual size can be, which fits the disk."""
    size = int.from_bytes(packed.peek(_SIZE_FIELD.stop)[_SIZE_FIELD], "big")
    check_size_fits(packed.name, size, installation.disk)
    limit = size + size // _TABLES_SHARE + _TABLES_MORE

    def check(position: int) -> None:
        if position > limit:
            raise InvalidImageError(
                f"{packed.name}: holds a qcow2 of more than {format_size(limit)} for a disk of {format_size(size)}; "
                "expected less; nothing was written"
            )

    return check


def _raw_limit(packed: PackedFile, installation: Installation) -> Callable[[int], None]:
    """Return what refuses raw bytes as soon as there are more than the disk has: how many shows at the end."""
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
    """Return where raw bytes end, as far as their beginning tells, which cannot be another file's; or it is refused."""
    beginning = packed.peek(LOOK_AT)
    if not beginning:
        raise InvalidImageError(f"{packed.name}: is the image of a disk of 0 bytes; expected one that holds something")
    _check_beginning(packed.name, beginning)
    described = described_end(beginning)
    check_size_fits(packed.name, described, installation.disk)
    return described


def _check_beginning(name: str, beginning: bytes) -> None:
    disk = MemoryDisk(len(beginning), name=name)
    disk.write(0, beginning)
    check_disk_contents(disk, inside=True)


def _of_file(progress: Progress, packed: PackedFile) -> Progress:
    """Tell how much of the compressed file was read: how large its contents are is not known."""
    return lambda _done, _total: progress(packed.consumed, packed.size)
