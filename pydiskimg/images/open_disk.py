# SPDX-License-Identifier: MIT
"""open_disk(): open a block device or a file as a Disk, or the virtual disk of the qcow2 image in it."""

from __future__ import annotations

import os
from contextlib import ExitStack

from pydiskimg.disks.open import OpenDisk, open_raw_disk
from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images import FORMATS
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Literal, overload

    from pydiskimg.disks.descriptor import DescriptorDisk
    from pydiskimg.images.qcow2.write.disk import Qcow2Disk
    from pydiskimg.images.references import AllowedDirectory

# Imported for type checkers only: importing typing takes longer than opening a disk.
if TYPE_CHECKING:

    @overload
    def open_disk(
        path: str | os.PathLike[str], *, writable: bool = False, is_zero: bool = False, format: Literal["raw"] = "raw"
    ) -> OpenDisk[DescriptorDisk]: ...

    @overload
    def open_disk(
        path: str | os.PathLike[str],
        *,
        writable: bool = False,
        is_zero: bool = False,
        format: Literal["qcow2"],
        references: AllowedDirectory | None = None,
        compress: bool = False,
    ) -> OpenDisk[Qcow2Disk]: ...

    @overload
    def open_disk(
        path: str | os.PathLike[str],
        *,
        writable: bool = False,
        is_zero: bool = False,
        format: str,
        references: AllowedDirectory | None = None,
        compress: bool = False,
    ) -> OpenDisk[Any]: ...


def open_disk(
    path: str | os.PathLike[str],
    *,
    writable: bool = False,
    is_zero: bool = False,
    format: str = "raw",  # noqa: A002  qemu-img's word
    references: AllowedDirectory | None = None,
    compress: bool = False,
) -> OpenDisk[Any]:
    """Open a block device or an existing regular file as a Disk; a context manager that gives the Disk.

    The file is never created, truncated or extended. format "raw" is the device or file itself. "qcow2" is the virtual
    disk of the qcow2 image in it; the file then grows as the disk is filled. references is as for open_image();
    compress compresses whole clusters where nothing was stored before. is_zero states that the whole disk reads as
    zero, so that copies need not zero what they skip.

    writable opens for writing. A block device is then opened O_EXCL, so that a mounted device or one claimed in another
    way is refused; a file is locked with flock(2) and refused while a loop device uses it. Both are refused while QEMU,
    qemu-img or an export uses them, and are locked as QEMU locks them; `qemu-img info -U` still works, and no other
    program may write a backing file. On a file system without such locks, other programs are not kept out.

    Leaving the block closes the descriptor. It flushes a qcow2 image; for a raw disk call Disk.flush() first.

    Raises InUseError when another program uses the device or file, StorageError when it does not exist, may not be
    opened or is something else, and for qcow2 what open_image() raises.

    >>> from pydiskimg import open_disk
    >>> with open_disk("disk.raw", writable=True) as disk:
    ...     disk.write(disk.size - 512, bytes(512))
    ...     disk.flush()
    """
    name = os.fspath(path)
    if format not in FORMATS:
        raise UnsupportedImageError(f"{name}: the format {format!r} is not known; expected {' or '.join(FORMATS)}")
    with ExitStack() as stack:
        disk = stack.enter_context(open_raw_disk(name, writable=writable))
        image = FORMATS[format].open_disk(stack, disk, references=references, compress=compress, writable=writable)
        image.reads_as_zero = image.reads_as_zero or is_zero
        return OpenDisk(image, stack.pop_all(), flush=writable and image is not disk)


def open_image_disk(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002  qemu-img's word
    references: AllowedDirectory | None = None,
) -> OpenDisk[Any]:
    """Open the disk in an image for writing, in any format; the result is as for open_disk().

    format None detects the format by the first bytes, with the limits that open_image() describes; references and
    errors are those of open_disk().

    >>> from pydiskimg import open_image_disk
    >>> with open_image_disk("disk.qcow2") as disk:
    ...     disk.zero(disk.size - 512, 512)
    """
    name = os.fspath(path)
    if format is None:
        from pydiskimg.images import detect_image
        from pydiskimg.images.raw import open_image_file

        with open_image_file(name) as file:
            format = detect_image(file)  # noqa: A001
    if format == "qcow2":
        return open_disk(name, writable=True, format="qcow2", references=references)
    return open_disk(name, writable=True)
