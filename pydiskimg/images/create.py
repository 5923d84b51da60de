# SPDX-License-Identifier: MIT
"""new_image(): a new raw or qcow2 image, that is an image only when it is complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pydiskimg.disks.fits import check_size_fits
from pydiskimg.disks.new_file import new_disk_file, new_file
from pydiskimg.disks.store import FixedStore, GrowingFile
from pydiskimg.errors import StorageError, UnsupportedImageError
from pydiskimg.images import FORMATS
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.qcow2.compress import compressor
from pydiskimg.images.qcow2.write.create import (
    DEFAULT_CLUSTER_SIZE,
    check_options,
    create_qcow2,
    l1_entries,
    round_size,
)
from pydiskimg.images.qcow2.write.disk import open_qcow2_disk
from pydiskimg.images.qcow2.write.header_last import UnpublishedStore
from pydiskimg.linux.blockdev import is_block_device
from pydiskimg.protocols import Disk, Store
from pydiskimg.text import quoted


@contextmanager
def new_image(
    path: str | os.PathLike[str],
    size: int,
    *,
    format: str = "raw",  # noqa: A002 - the field's word, as in open_image()
    cluster_size: int = DEFAULT_CLUSTER_SIZE,
    version: int = 3,
    compression_type: str = "zlib",
    compress: bool = False,
) -> Iterator[Disk]:
    """Give an empty virtual disk of size bytes; leaving the context makes the image at path complete and durable.

        with new_image("copy.qcow2", source.size, format="qcow2", compress=True) as disk:
            copy(source, disk)

    A file appears under its name only then, replacing one of that name as new_disk_file() does. A block device is
    written in place: raw is the device itself, with the device's size; of a qcow2 image the header goes first and
    comes back last, so that an interrupted one is not an image. The options after format are those of a qcow2 image,
    whose size is rounded up to 512 bytes; compress compresses what write() gets in whole clusters.
    Raises UnsupportedImageError for a negative size and DoesNotFitError for a device that is smaller, otherwise as
    create_qcow2(), new_disk_file() and open_disk() do.
    """
    _check_arguments(os.fspath(path), size, format)
    with FORMATS[format].new(
        path,
        size,
        cluster_size=cluster_size,
        version=version,
        compression_type=compression_type,
        compress=compress,
    ) as disk:
        yield disk


@contextmanager
def new_raw(path: str | os.PathLike[str], size: int) -> Iterator[Disk]:
    """Give a new raw image as new_image() does."""
    with open_disk(path, writable=True) if is_block_device(path) else new_disk_file(path, size) as disk:
        check_size_fits("to be made", size, disk)
        yield disk


@contextmanager
def new_qcow2(
    path: str | os.PathLike[str], size: int, *, cluster_size: int, version: int, compression_type: str, compress: bool
) -> Iterator[Disk]:
    """Give the disk of a new qcow2 image as new_image() does."""
    # Before a device's old beginning is wiped.
    name = os.fspath(path)
    check_options(name, cluster_size=cluster_size, version=version, compression_type=compression_type)
    l1_entries(round_size(size), cluster_size, name=name)
    if compress:
        compressor(compression_type, name=name)
    with _new_store(path) as store:
        held = UnpublishedStore(store, cluster_size)
        create_qcow2(held, size, cluster_size=cluster_size, version=version, compression_type=compression_type)
        disk = open_qcow2_disk(held, compress=compress)
        try:
            yield disk
            disk.flush()
        finally:
            disk.close()
        held.publish()


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
def _new_store(path: str | os.PathLike[str]) -> Iterator[Store]:
    if not is_block_device(path):
        with new_file(path) as (fd, name):
            yield GrowingFile(fd, name)
        return
    with open_disk(path, writable=True) as disk:
        yield FixedStore(disk)
