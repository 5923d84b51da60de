# SPDX-License-Identifier: MIT
"""new_image(): make a new raw or qcow2 image, which becomes an image only when it is complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pydiskimg.disks.fits import check_size_fits
from pydiskimg.disks.new_file import new_disk_file, new_file
from pydiskimg.disks.preallocation import check_preallocation, reserve, write_zeros
from pydiskimg.disks.store import FixedStore, GrowingFile
from pydiskimg.errors import InUseError, StorageError, UnsupportedImageError
from pydiskimg.images import FORMATS
from pydiskimg.images.backing_name import check_backing_name, refuse_itself
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.qcow2.compress import compressor
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.options import chosen_options
from pydiskimg.images.qcow2.sizes import l1_entries, round_size
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.disk import Qcow2Disk, open_qcow2_disk, require_compressible
from pydiskimg.images.qcow2.write.header_last import UnpublishedStore
from pydiskimg.linux.blockdev import is_block_device
from pydiskimg.protocols import Disk, Source, Store
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import quoted

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any, Literal, Unpack, overload

    from pydiskimg.disks.file import FileDisk
    from pydiskimg.images.qcow2.options import ChosenOptions, Qcow2Options


# Imported for type checkers only: importing typing takes long.
if TYPE_CHECKING:

    @overload
    def new_image(
        path: str | os.PathLike[str],
        size: int,
        *,
        format: Literal["qcow2"],
        preallocation: str = "off",
        compress: bool = False,
        **options: Unpack[Qcow2Options],
    ) -> AbstractContextManager[Qcow2Disk]: ...

    @overload
    def new_image(
        path: str | os.PathLike[str],
        size: int,
        *,
        format: str = "raw",
        preallocation: str = "off",
        compress: bool = False,
        **options: Unpack[Qcow2Options],
    ) -> AbstractContextManager[Disk]: ...


@contextmanager
def new_image(
    path: str | os.PathLike[str],
    size: int,
    *,
    format: str = "raw",  # noqa: A002 - the field's word, as in open_image()
    preallocation: str = "off",
    compress: bool = False,
    **options: Unpack[Qcow2Options],
) -> Iterator[Any]:
    """Create an image with an empty virtual disk of size bytes; a context manager that gives the Disk.

    Leaving the block completes the image and makes it durable. A file appears under its name only then, and replaces a
    file of that name; after an exception nothing is left. A block device is written in place: for "raw" it is the
    device itself; the header of a qcow2 image is written last, so that an interrupted run does not look like an image.

    format is "raw" or "qcow2"; the size of a qcow2 image is rounded up to 512 bytes. preallocation is "off", "metadata"
    (qcow2: the tables), "falloc" (reserved space) or "full" (zeros). compress compresses what write() receives in whole
    clusters of a qcow2 image. options are those of a qcow2 image: cluster_size (512 bytes to 2 MiB, a power of two),
    version (2 or 3), compression_type ("zlib" or "zstd"), refcount_bits, lazy_refcounts, extended_l2, data_file and
    data_file_raw.

    Raises UnsupportedImageError for a negative size, options of qcow2 with "raw" or options that do not go together,
    DoesNotFitError for a device that is too small, InUseError and StorageError where the system refuses.

    >>> from pydiskimg import copy, new_image, open_image
    >>> with open_image("disk.raw") as source:
    ...     with new_image("copy.qcow2", source.size, format="qcow2", compress=True) as disk:
    ...         copied = copy(source, disk, unit=disk.unit)
    >>> copied.total
    67108864
    """
    _check_arguments(os.fspath(path), size, format)
    if not FORMATS[format].has_options and (given := [*options, *(["compress"] if compress else [])]):
        raise UnsupportedImageError(
            f"{os.fspath(path)}: {FORMATS[format].title} does not have options such as {given[0]}; leave them out, or "
            "make a qcow2 image"
        )
    with FORMATS[format].new(path, size, preallocation=preallocation, compress=compress, **options) as disk:
        yield disk


@contextmanager
def new_raw(path: str | os.PathLike[str], size: int, *, preallocation: str = "off") -> Iterator[Disk]:
    """Give a new raw image as new_image() does."""
    check_preallocation(os.fspath(path), "raw", preallocation)
    on_device = is_block_device(path)
    with open_disk(path, writable=True) if on_device else new_disk_file(path, size) as disk:
        check_size_fits("to be made", size, disk)
        if not on_device and preallocation != "off":
            reserve(disk.fd, 0, size, name=disk.name)
        if not on_device and preallocation == "full":
            write_zeros(disk, 0, size)
        yield disk


@contextmanager
def new_qcow2(
    path: str | os.PathLike[str],
    size: int,
    *,
    preallocation: str = "off",
    compress: bool = False,
    backing: Backing | None = None,
    **options: Unpack[Qcow2Options],
) -> Iterator[Disk]:
    """Give the disk of a new qcow2 image as new_image() does; options are those of create_qcow2().

    backing is the image's backing file, opened: the disk shows it where nothing is written.
    """
    # Checked before a device's old beginning is wiped.
    name = os.fspath(path)
    chosen = chosen_options(name, options)
    check_preallocation(name, "qcow2", preallocation)
    l1_entries(round_size(size), chosen.cluster_size, name=name, entry_size=chosen.l2_entry_size)
    if compress:
        require_compressible(name, has_data_file=bool(chosen.data_file))
        compressor(chosen.compression_type, name=name)
    with _new_store(path) as store:
        held = UnpublishedStore(store, chosen.cluster_size)
        with _new_data_file(name, chosen, round_size(size), preallocation) as data_file:
            named = {} if backing is None else {"backing_file": backing.name, "backing_format": backing.format}
            create_qcow2(held, size, **named, **options)
            below = None if backing is None else backing.source
            disk = open_qcow2_disk(held, backing=below, data_file=data_file, compress=compress)
            try:
                # A raw data file must show what other programs write to it: all clusters are allocated, as by QEMU.
                if preallocation != "off" or chosen.data_file_raw:
                    disk.preallocate(0, disk.size, full=preallocation == "full")
                yield disk
                disk.flush()
            finally:
                disk.close()
        if preallocation == "falloc" and isinstance(store, GrowingFile):
            reserve(store.fd, 0, store.size, name=name)
        held.publish()


def new_overlay(
    path: str | os.PathLike[str],
    size: int,
    *,
    backing_file: bytes,
    backing_format: bytes,
    preallocation: str = "off",
    **options: Unpack[Qcow2Options],
) -> None:
    """Create a qcow2 image of size bytes that shows its backing file until it is written to.

    The image is complete and durable on return. backing_file is the name to record, relative to the directory of the
    new image, and backing_format "raw" or "qcow2", both as bytes; the backing file is not opened. preallocation needs
    extended_l2=True; options and errors are those of new_image().

    >>> from pydiskimg import allow_references, new_overlay, open_image
    >>> new_overlay("clone.qcow2", 64 << 20, backing_file=b"disk.qcow2", backing_format=b"qcow2")
    >>> with allow_references(".") as references, open_image("clone.qcow2", references=references) as image:
    ...     list(image.files())
    ['clone.qcow2', 'disk.qcow2']
    """
    name = os.fspath(path)
    if preallocation != "off" and not options.get("extended_l2"):
        raise UnsupportedImageError(
            f"{name}: preallocated clusters would hide the backing file; with preallocation={preallocation} a backing "
            "file needs extended_l2=on"
        )
    _check_arguments(name, size, "qcow2")
    check_backing_name(name, backing_file, backing_format)
    refuse_itself(name, backing_file)  # an image of this name would be replaced
    chosen = chosen_options(name, options)
    with new_file(path) as (fd, name), _new_data_file(name, chosen, round_size(size), preallocation) as data_file:
        store = GrowingFile(fd, name)
        create_qcow2(store, size, backing_file=backing_file, backing_format=backing_format, **options)
        if preallocation == "off":
            return
        # The disk is not read.
        disk = Qcow2Disk(store, read_header(store), backing=None, data_file=data_file, compress=None)
        disk.preallocate(0, disk.size, full=preallocation == "full")
        disk.flush()
        if preallocation == "falloc":
            reserve(fd, 0, store.size, name=name)


class Backing:
    """The backing file of a new image: name and format (bytes) as the image records them, source its contents."""

    def __init__(self, source: Source, *, name: bytes, format: bytes) -> None:  # noqa: A002 - the field's word
        self.source = source
        self.name = name
        self.format = format


def _check_arguments(name: str, size: int, format_name: str) -> None:
    if "\0" in name:
        raise StorageError(f"{quoted(name)}: is not a path (it has a null byte)", errno=errno.EINVAL, filename=name)
    if format_name not in FORMATS:
        raise UnsupportedImageError(
            f"{name}: the format {format_name!r} is not written; expected {' or '.join(FORMATS)}"
        )
    if size < 0:
        raise UnsupportedImageError(f"{name}: a size of {size} bytes is not possible; expected 0 or more")


@contextmanager
def _new_data_file(image: str, chosen: ChosenOptions, size: int, preallocation: str) -> Iterator[FileDisk | None]:
    """Give the new external data file of an image, as new_disk_file() does; None if it has none."""
    if not chosen.data_file:
        yield None
        return
    path = data_file_path(image, chosen.data_file)
    with new_disk_file(path, size) as disk:
        yield disk
        if preallocation == "falloc":
            reserve(disk.fd, 0, size, name=path)


def data_file_path(image: str, name: str) -> str:
    """Return the path of the external data file with this name for an image at the path image.

    Raises UnsupportedImageError for the name of a protocol, and for a name that means another file to QEMU, which
    starts at the current directory instead of the image's.
    """
    path = os.path.join(os.path.dirname(image), name)
    if ":" in name.partition("/")[0]:
        raise UnsupportedImageError(f"{name}: is the name of a protocol to QEMU, and only files are data files")
    if os.path.realpath(path) != os.path.realpath(name):
        raise UnsupportedImageError(
            f"{image}: the data file {name} would be {path} here and {os.path.abspath(name)} to QEMU; name it by its "
            "absolute path"
        )
    if os.path.realpath(path) == os.path.realpath(image):
        raise InUseError(f"{path}: is the data file and the new image at once", errno=None, filename=path)
    return path


@contextmanager
def _new_store(path: str | os.PathLike[str]) -> Iterator[Store]:
    if not is_block_device(path):
        with new_file(path) as (fd, name):
            yield GrowingFile(fd, name)
        return
    with open_disk(path, writable=True) as disk:
        yield FixedStore(disk)
