# SPDX-License-Identifier: MIT
"""open_disk(): a block device or a file as a Disk, or the virtual disk of the qcow2 image that it holds."""

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

# Only the checker needs these, and typing takes longer to import than what opens a disk.
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


def open_disk(
    path: str | os.PathLike[str],
    *,
    writable: bool = False,
    is_zero: bool = False,
    format: str = "raw",  # noqa: A002  qemu-img's word
    references: AllowedDirectory | None = None,
    compress: bool = False,
) -> OpenDisk[Any]:
    """Open a block device or an existing regular file as a Disk.

    For writing, a block device is opened O_EXCL, so that a mounted or otherwise claimed device is refused; a
    file is locked (flock) and refused while it is attached to a loop device. Both are refused while a virtual machine
    or qemu-img uses them or an export reads them, and are locked as QEMU does, so that these do not begin to; looking
    at them with `qemu-img -U` goes on. A file system without such locks keeps no other program out. Files are never
    made, truncated or grown.

    format "qcow2" gives the virtual disk of the qcow2 image that the file or device holds; the file grows as the
    disk is filled. references are the files it may name, as for open_image(); compress compresses what is written
    in whole clusters where nothing was yet. is_zero is the caller's word that all of the disk reads as zero: then
    reads_as_zero is True, and no copy zeroes what it leaves out.

    Raises InUseError when somebody holds it, StorageError for what does not exist, may not be opened, or is neither
    a device nor a file; for qcow2 also what open_image() and open_qcow2_disk() raise.
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
    """Open the disk in an image of any format that is written, for writing; the rest is as for open_disk().

    format None finds it out by the contents, as open_image() does.
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
