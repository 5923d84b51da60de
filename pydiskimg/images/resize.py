# SPDX-License-Identifier: MIT
"""resize_image(): a raw file or a qcow2 image becomes larger or smaller in place."""

from __future__ import annotations

import os
from contextlib import ExitStack

from pydiskimg.disks.block import BlockDisk
from pydiskimg.disks.file import FileDisk
from pydiskimg.disks.open import enter_raw_disk
from pydiskimg.disks.preallocation import check_preallocation, reserve, write_zeros
from pydiskimg.disks.store import cut_file, store_of
from pydiskimg.errors import UnsupportedImageError, storage_error
from pydiskimg.images import detect
from pydiskimg.images.chain import open_chain_disk
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.switch.shrink import require_resizable, shrink_qcow2
from pydiskimg.images.qcow2.write.create import round_size
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydiskimg.disks.descriptor import DescriptorDisk
    from pydiskimg.images.qcow2.write.disk import Qcow2Disk
    from pydiskimg.images.references import AllowedDirectory


def resize_image(
    path: str | os.PathLike[str],
    new_size: Callable[[int], int],
    *,
    format: str | None = None,  # noqa: A002 - the field's word, as in open_image()
    shrink: bool = False,
    preallocation: str = "off",
    references: AllowedDirectory | None = None,
) -> int:
    """Give the virtual disk in an image another size, and return it; durable on return.

    new_size gets the present size (bytes) and returns the wanted one, which is rounded up to 512 for qcow2. A smaller
    one, by which what lies beyond is lost, is refused without shrink. What is new reads as zero, and
    preallocation says how it is stored: "off", not at all; "metadata" (qcow2), as tables; "falloc", as reserved room;
    "full", as zeros. format is what the caller knows; None looks at the contents. references are the files that the
    image may name, as for open_image(): a backing file must not show in what is new.

    Raises UnsupportedImageError for what cannot be done, InUseError, StorageError and InvalidImageError.
    """
    name = os.fspath(path)
    with ExitStack() as stack:
        disk = enter_raw_disk(stack, name, writable=True)
        found = format or detect(disk)
        check_preallocation(name, found, preallocation)
        old = disk.size if found == "raw" else read_header(store_of(disk)).size
        size = new_size(old)
        _check_direction(name, old, size, shrink=shrink, preallocation=preallocation)
        if found == "raw":
            _resize_raw(disk, size, preallocation)
            return size
        return _resize_qcow2(stack, disk, round_size(size), preallocation, references)


def _check_direction(name: str, old: int, size: int, *, shrink: bool, preallocation: str) -> None:
    if size < 0:
        raise UnsupportedImageError(
            f"{name}: has {format_bytes(old)}, and {format_bytes(old - size)} cannot be taken away"
        )
    if not size:
        raise UnsupportedImageError(
            f"{name}: has {format_bytes(old)}, and nothing would be left; expected a size above 0"
        )
    if size > old:
        return
    if size < old and not shrink:
        raise UnsupportedImageError(
            f"{name}: has {format_bytes(old)}, and {format_bytes(size)} is less: what lies beyond would be lost; use "
            "--shrink if that is wanted"
        )
    if preallocation != "off":
        raise UnsupportedImageError(f"{name}: preallocation={preallocation} is for images that become larger")


def _resize_raw(disk: DescriptorDisk, size: int, preallocation: str) -> None:
    if isinstance(disk, BlockDisk):
        raise UnsupportedImageError(
            f"{disk.name}: is a block device, whose size is not changed here; use the program that made it, such as "
            "lvextend"
        )
    old = disk.size
    if preallocation != "off":
        reserve(disk.fd, old, size - old, name=disk.name)
    try:
        os.ftruncate(disk.fd, size)
    except OSError as error:
        raise storage_error(error, disk.name, f"cannot change the size to {size} bytes") from error
    disk.size = size
    if preallocation == "full":
        write_zeros(disk, old, size)
    disk.flush()


def _resize_qcow2(
    stack: ExitStack, disk: DescriptorDisk, size: int, preallocation: str, references: AllowedDirectory | None
) -> int:
    store = store_of(disk)
    header = read_header(store)
    if size < header.size and not header.has_data_file:
        cut_file(disk, shrink_qcow2(store, size))
        return size
    require_resizable(header, disk.name)
    image = open_chain_disk(stack, disk, references=references, compress=False, writable=True)
    if size < header.size:
        cut_file(disk, shrink_qcow2(store, size))
        cut_file(_data_file(image), size)
        return size
    old, file_end = image.size, os.fstat(disk.fd).st_size
    image.grow(size)
    if (preallocation != "off" or header.data_file_raw) and size > old:
        image.preallocate(old, size - old, full=preallocation == "full")
    image.flush()
    if preallocation == "falloc" and header.has_data_file:
        data_file = _data_file(image)
        reserve(data_file.fd, old, size - old, name=data_file.name)
    if preallocation == "falloc" and not header.has_data_file and not isinstance(disk, BlockDisk):
        reserve(disk.fd, file_end, os.fstat(disk.fd).st_size - file_end, name=disk.name)
    return size


def _data_file(image: Qcow2Disk) -> FileDisk:
    assert isinstance(image.data_file, FileDisk)  # by open_chain_disk()
    return image.data_file
