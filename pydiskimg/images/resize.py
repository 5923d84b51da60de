# SPDX-License-Identifier: MIT
"""resize_image(): make a raw file or a qcow2 image larger or smaller in place."""

from __future__ import annotations

import os

from pydiskimg.disks.open import open_raw_disk
from pydiskimg.disks.store import cut_file, store_of
from pydiskimg.errors import DoesNotFitError, StorageError, UnsupportedImageError, storage_error
from pydiskimg.images import detect
from pydiskimg.images.qcow2.header import read_header, require_changeable, require_resizable
from pydiskimg.images.qcow2.sizes import round_size
from pydiskimg.images.qcow2.write.grow import grow_by_header
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydiskimg.disks.descriptor import DescriptorDisk
    from pydiskimg.images.qcow2.header import Header
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
    """Change the size of the virtual disk in a raw or qcow2 image in place, and return the new size in bytes.

    new_size is called with the present size and returns the wanted one, which is rounded up to 512 bytes for qcow2. A
    smaller size loses the bytes beyond it, and is refused without shrink. New bytes read as zero; preallocation says
    how they are stored, as for new_image(). format and references are as for open_image(). The change is durable on
    return.

    Raises UnsupportedImageError for a change that cannot be made, InUseError, StorageError and InvalidImageError.

    >>> from pydiskimg import resize_image
    >>> resize_image("disk.qcow2", lambda size: size + (1 << 30))
    1140850688
    """
    name = os.fspath(path)
    with open_raw_disk(name, writable=True) as disk:
        found = format or detect(disk)
        if preallocation != "off":
            from pydiskimg.disks.preallocation import check_preallocation

            check_preallocation(name, found, preallocation)
        if found == "raw":
            size = new_size(disk.size)
            _check_direction(name, disk.size, size, shrink=shrink, preallocation=preallocation)
            _resize_raw(disk, size, preallocation)
            return size
        header = read_header(store_of(disk))
        size = new_size(header.size)
        _check_direction(name, header.size, size, shrink=shrink, preallocation=preallocation)
        size = round_size(size)
        _resize_qcow2(disk, header, size, preallocation, references)
        return size


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
            f"{name}: has {format_bytes(old)}, and {format_bytes(size)} is less: the bytes beyond would be lost; use "
            "--shrink if that is wanted"
        )
    if preallocation != "off":
        raise UnsupportedImageError(f"{name}: preallocation={preallocation} is for images that become larger")


def _resize_raw(disk: DescriptorDisk, size: int, preallocation: str) -> None:
    if disk.is_block_device:
        raise UnsupportedImageError(
            f"{disk.name}: is a block device, whose size cannot be changed here; use the program that made it, such as "
            "lvextend"
        )
    old = disk.size
    if preallocation != "off":
        from pydiskimg.disks.preallocation import reserve

        reserve(disk.fd, old, size - old, name=disk.name)
    try:
        os.ftruncate(disk.fd, size)
    except OSError as error:
        raise storage_error(error, disk.name, f"cannot change the size to {size} bytes") from error
    except OverflowError as error:
        text = f"{disk.name}: no file can have {format_bytes(size)}; nothing was changed"
        raise DoesNotFitError(text, needed=size, available=0) from error
    disk.size = size
    if preallocation == "full":
        from pydiskimg.disks.preallocation import write_zeros

        write_zeros(disk, old, size)
    disk.flush()


def _resize_qcow2(
    disk: DescriptorDisk, header: Header, size: int, preallocation: str, references: AllowedDirectory | None
) -> None:
    require_changeable(header, disk.name)
    require_resizable(header, disk.name)
    if size == header.size:
        return
    if size < header.size and not header.has_data_file:
        _shrink(disk, size)
    elif header.names_files:
        _resize_in_chain(disk, size, preallocation, references)
    elif preallocation != "off" or not grow_by_header(store_of(disk), header, size):
        from pydiskimg.images.qcow2.write.disk import open_qcow2_disk

        _grow(disk, open_qcow2_disk(store_of(disk)), size, preallocation)


def _shrink(disk: DescriptorDisk, size: int) -> None:
    from pydiskimg.images.qcow2.switch.shrink import shrink_qcow2

    cut_file(disk, shrink_qcow2(store_of(disk), size))


def _resize_in_chain(disk: DescriptorDisk, size: int, preallocation: str, references: AllowedDirectory | None) -> None:
    """Resize an image that names other files, which are opened, too."""
    from contextlib import ExitStack

    from pydiskimg.images.chain import open_chain_disk

    with ExitStack() as stack:
        image = open_chain_disk(stack, disk, references=references, compress=False, writable=True)
        if size > image.size:
            _grow(disk, image, size, preallocation)
        else:
            _shrink(disk, size)
            cut_file(_data_file(image), size)


def _grow(disk: DescriptorDisk, image: Qcow2Disk, size: int, preallocation: str) -> None:
    """Extend the virtual disk in disk."""
    old, file_end = image.size, os.fstat(disk.fd).st_size
    image.grow(size)
    try:
        if preallocation != "off" or image.has_raw_data_file:
            image.preallocate(old, size - old, full=preallocation == "full")
        image.flush()
        _reserve(disk, image, preallocation, file_end, old)
    except StorageError as error:
        missing = "" if preallocation == "off" else ", which is not preallocated"
        error.add_what_is_left(
            f"the image has the new size of {size} bytes{missing}; pydiskimg check -r leaks frees clusters that are "
            "not used"
        )
        raise


def _reserve(disk: DescriptorDisk, image: Qcow2Disk, preallocation: str, file_end: int, old: int) -> None:
    """Let the file system allocate what the file has gained, for preallocation=falloc."""
    if preallocation != "falloc" or (disk.is_block_device and image.data_file is None):
        return
    from pydiskimg.disks.preallocation import reserve

    file, start, end = disk, file_end, os.fstat(disk.fd).st_size
    if image.data_file is not None:
        file, start, end = _data_file(image), old, image.size
    reserve(file.fd, start, end - start, name=file.name)


def _data_file(image: Qcow2Disk) -> DescriptorDisk:
    from pydiskimg.disks.descriptor import DescriptorDisk

    assert isinstance(image.data_file, DescriptorDisk)  # by open_chain_disk()
    return image.data_file
